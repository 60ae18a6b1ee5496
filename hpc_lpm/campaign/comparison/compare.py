"""Compares two campaigns: what changed from A to B, and whether B meets its own expectations."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_lpm.campaign.comparison.comparability import Comparability, comparability_of
from hpc_lpm.campaign.comparison.contestants import ContestantChange, contestant_changes
from hpc_lpm.campaign.comparison.trials import TrialChange, trial_changes
from hpc_lpm.campaign.expectations import Verdict, judge
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.notes import notes_on
from hpc_lpm.campaign.reaching import RaceTarget
from hpc_lpm.campaign.results import CampaignResults, load_results
from hpc_lpm.campaign.statistics import CONFIDENCE
from hpc_lpm.campaign.wording import listed

Targets = Mapping[tuple[str, str], RaceTarget]

SAME_TARGET = 1e-6
"""By how much, of its value, a target may differ that two campaigns share."""


@dataclass(frozen=True)
class Absence:
    """A trial without a result in one of the two campaigns, and the reason."""

    trial: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Campaign B against campaign A.

    `notes_a` and `notes_b` are sentences without full stops on the runs behind their numbers.
    Missing in a campaign are trials of its own matrix without a result, and trials that only the
    other campaign has. They are named, but do not decide whether B meets its expectations.
    """

    a: CampaignResults
    b: CampaignResults
    contestants: list[ContestantChange]
    trials: list[TrialChange]
    comparability: Comparability
    missing_in_a: list[Absence]
    missing_in_b: list[Absence]
    notes_a: list[str]
    notes_b: list[str]
    expectations: list[Verdict]

    @property
    def held(self) -> bool:
        """Whether everything that B expects holds; what cannot be judged does not."""
        return all(verdict.held for verdict in self.expectations)

    def headline(self) -> str:
        """Summarise how many trials reproduced their weights."""
        return weights_sentence(self.comparability, self.trials)

    def findings(self) -> list[str]:
        """Explain weights that differ, as far as the records tell, and name other targets."""
        found = weights_findings(self.comparability, self.trials)
        return [*found, *targets_findings(self.a.targets, self.b.targets)]

    def chance_sentence(self) -> str:
        """State how many verdicts may be due to chance: none is corrected for multiplicity."""
        judged = [entry.change for entry in self.contestants if entry.change.low is not None]
        if not judged:
            return (
                "Nothing is judged: no contestant has enough runs in both campaigns for an interval"
            )
        by_chance = (1 - CONFIDENCE) * len(judged)
        return (
            f"{len(judged)} changes are judged, each at 95 %: if nothing had changed, one in "
            f"twenty, here about {by_chance:.1f}, would be called better or worse by chance"
        )

    def document(self) -> dict[str, object]:
        """Return the comparison as JSON; docs/reference/files.md describes the keys."""
        runs_a, runs_b = ({run.trial.name for run in side.runs} for side in (self.a, self.b))
        return {
            "changes": [entry.document() for entry in self.contestants],
            "trials": [entry.document() for entry in self.trials],
            "same_weights": {entry.trial.name: entry.same_weights for entry in self.trials},
            "headline": self.headline(),
            "findings": self.findings(),
            "chance": self.chance_sentence(),
            "differences": asdict(self.comparability),
            "only_in_a": [run.trial.name for run in self.a.runs if run.trial.name not in runs_b],
            "only_in_b": [run.trial.name for run in self.b.runs if run.trial.name not in runs_a],
            "missing_in_a": [asdict(absence) for absence in self.missing_in_a],
            "missing_in_b": [asdict(absence) for absence in self.missing_in_b],
            "notes_a": self.notes_a,
            "notes_b": self.notes_b,
            "expectations": [
                {"held": verdict.held, "sentence": verdict.sentence()}
                for verdict in self.expectations
            ],
            "held": self.held,
        }


def compare_folders(folder_a: Path, folder_b: Path) -> Comparison:
    """Compare the campaigns of two folders.

    Raises:
        InputError: if one is not the folder of a campaign.
    """
    folders = CampaignFolder(folder_a), CampaignFolder(folder_b)
    # A metric that only one of them asks for is computed for the other too.
    asked = [name for folder in folders for name in folder.read_campaign().further_metrics]
    a, b = (load_results(folder.root, asked) for folder in folders)
    return Comparison(
        a=a,
        b=b,
        contestants=contestant_changes(a.summary, b.summary, b.metrics),
        trials=trial_changes(a.runs, b.runs),
        comparability=comparability_of(a, b),
        missing_in_a=list(_missing(a, b, "A")),
        missing_in_b=list(_missing(b, a, "B")),
        notes_a=notes_on(a),
        notes_b=notes_on(b),
        expectations=judge(b.campaign, b.summary),
    )


def _missing(here: CampaignResults, other: CampaignResults, side: str) -> Iterator[Absence]:
    for missing in here.missing:
        yield Absence(missing.trial.name, missing.reason)
    left_out = {absent.contestant: absent for absent in here.absent}
    for trial in here.trials:
        if trial.contestant in left_out:
            yield Absence(trial.name, left_out[trial.contestant].sentence())
    known = {trial.name for trial in here.trials}
    for run in other.runs:
        if run.trial.name not in known:
            yield Absence(run.trial.name, f"not in the matrix of {side}")


def weights_sentence(comparability: Comparability, trials: list[TrialChange]) -> str:
    """Summarise how many common trials reproduced their weights, from which settings."""
    if not trials:
        return "No trial has finished in both campaigns, so that there are no weights to compare"
    start = "Same configuration, same seeds"
    if comparability.configuration:
        keys = [difference.what for difference in comparability.configuration]
        start = f"Same configuration but for {listed(keys)}"
    same = sum(trial.same_weights for trial in trials)
    return f"{start}: {same} of {len(trials)} common trials ended in the very same weights"


def weights_findings(comparability: Comparability, trials: list[TrialChange]) -> list[str]:
    """Explain weights that differ, in sentences without full stops.

    A plan follows a measured profile, so that the same configuration may be cut differently; a
    trial whose updates depend on the cuts then ends with other weights. If the weights differ
    although nothing else on record does, training is not reproducible, which is a finding.
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
    if puzzling and comparability.complete:
        found.append(
            f"Not reproducible: {len(puzzling)} of them differ in their weights although "
            "configuration, seeds, cuts, source revision, machine and software are the same: "
            f"{listed(puzzling)}"
        )
    return found


def targets_findings(first: Targets, second: Targets) -> list[str]:
    """Name the races whose targets differ, in sentences without full stops."""
    found = []
    for race in filter(second.__contains__, first):
        a, b = first[race], second[race]
        if a.value is None or b.value is None:
            continue
        if a.metric != b.metric or not math.isclose(a.value, b.value, rel_tol=SAME_TARGET):
            here = f"of {b.value_text(b.value)}"
            if a.metric != b.metric:
                here = f"a {b.title} {here}"
            found.append(
                f"The target of {' on '.join(race)} is a {a.title} of {a.value_text(a.value)} in A "
                f"and {here} in B, so that the steps and seconds to it are not to the same"
            )
    return found
