"""Says whether the same configuration and seeds led to the very same weights."""

from hpc_lpm.campaign.agreement import Agreement
from hpc_lpm.campaign.trial_changes import TrialChange

NAMED = 4
"""Most things that a sentence names before it counts the rest."""


def weights_sentence(agreement: Agreement, trials: list[TrialChange]) -> str:
    """Return how many common trials ended in the very same weights, and from what."""
    if not trials:
        return "No trial has finished in both campaigns, so that there are no weights to compare"
    start = "Same configuration, same seeds"
    if agreement.configuration:
        keys = [difference.what for difference in agreement.configuration]
        start = f"Same configuration but for {listed(keys)}"
    same = sum(trial.same_weights for trial in trials)
    return f"{start}: {same} of {len(trials)} common trials ended in the very same weights"


def weights_findings(agreement: Agreement, trials: list[TrialChange]) -> list[str]:
    """Return what weights that differ mean, each as a sentence without its full stop.

    A plan follows a measured profile, so that the same configuration may be cut differently, and
    a trial whose updates depend on the cuts then ends elsewhere. Where nothing that is known
    differs but the weights do, training is not reproducible, which is a finding.
    """
    different = [trial for trial in trials if not trial.same_weights]
    recut = [trial.trial.name for trial in different if not trial.same_cuts]
    puzzling = [
        trial.trial.name for trial in different if trial.same_cuts and trial.same_environment
    ]
    found = []
    if recut:
        found.append(
            f"{len(recut)} of them had other cuts in B than in A, for plans follow measured "
            f"profiles: {listed(recut)}"
        )
    if puzzling and agreement.complete:
        found.append(
            f"Not reproducible: {len(puzzling)} of them differ in their weights although "
            "configuration, seeds, cuts, source revision, machine and software are the same: "
            f"{listed(puzzling)}"
        )
    return found


def listed(names: list[str]) -> str:
    """Return names as `a, b, c`, of many the first and how many more."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
