"""What is to be known of the runs behind a report's numbers."""

from hpc_lpm.campaign.headline import unpaired_sentences
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.campaign.runs import Run
from hpc_lpm.campaign.wording import listed
from hpc_lpm.engine.records import Straggle
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan


def notes_on(results: CampaignResults) -> list[str]:
    """Return what is to be known of the runs of a campaign, in sentences without full stops."""
    notes = unpaired_sentences(results.summary)
    if not results.folder.hashes_file.exists():
        notes.append(
            "This campaign was run by an earlier release, which recorded no hashes: that its data "
            "and modules did not change meanwhile is not checked"
        )
    launches = results.launches()
    revisions = {
        f"{launch.source['revision']}{' with changes' if launch.source['dirty'] else ''}"
        for launch in launches.values()
        if launch.source and launch.source["revision"]
    }
    if len(revisions) > 1:
        notes.append(
            f"The trials were run from {len(revisions)} different states of the toolkit: "
            f"{', '.join(sorted(revisions))}"
        )
    fewer = [name for name, launch in launches.items() if launch.planned_for is not None]
    if fewer:
        notes.append(
            "A device was gone, so that these trials were planned again for fewer and are left "
            f"out: {listed(fewer)}"
        )
    slow = [
        f"rank {worst.rank} on {worst.host} in {run.trial.name}, {worst.factor:.1f} times as long "
        f"for {worst.seconds:.0f} s"
        for run in results.runs
        if run.result.stragglers
        for worst in [max(run.result.stragglers, key=_seconds_lost)]
    ]
    if slow:
        notes.append(
            "Passes of some ranks took longer than before, than planned or than on other ranks, "
            f"and held up the trial; result.json has all of them: {listed(slow)}"
        )
    recut = [run.trial.name for run in results.runs if _cut_otherwise(results, run)]
    if recut:
        notes.append(
            "Their plans were made again after these trials, which were cut otherwise than is "
            f"shown: {listed(recut)}"
        )
    return notes


def _seconds_lost(straggle: Straggle) -> float:
    return straggle.seconds * (1.0 - 1.0 / straggle.factor)


def _cut_otherwise(results: CampaignResults, run: Run) -> bool:
    if run.trial.planner is None:
        return False
    try:
        return list(Plan.read(results.folder.plan(run.trial)).cuts) != run.result.cuts
    except InputError:  # trained with a plan from elsewhere
        return False
