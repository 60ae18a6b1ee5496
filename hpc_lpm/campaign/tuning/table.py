"""What the report says of tunings: what each contestant was given, what it chose and gains."""

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.campaign.tuning.tuned import Tuned
from hpc_lpm.errors import InputError

COLUMNS = (
    *("model", "data set", "contestant", "given, s", "spent, s", "tried", "raced with"),
    *("ms a step", "of that as it is", "expected steps"),
)
"""Headings of the table; steps are relative to those of synchronous training."""


def read_tunings(folder: CampaignFolder, trials: list[Trial]) -> dict[str, Tuned]:
    """Return the tunings of a campaign that are there, by name, in the order of its trials."""
    found: dict[str, Tuned] = {}
    for trial in trials:
        path = folder.tuned(trial)
        if path.stem not in found:
            try:
                found[path.stem] = Tuned.read(path)
            except InputError:  # not tuned, or damaged: it is made again
                continue
    return found


def tuning_rows(tunings: dict[str, Tuned]) -> list[list[str]]:
    """Return a row for each tuning, with the cells of `COLUMNS`."""
    return [_row(tuned) for tuned in tunings.values()]


def _row(tuned: Tuned) -> list[str]:
    choice, usual = tuned.choice, tuned.candidates[0]
    tried = sum(each.steps > 0 for each in tuned.candidates)
    failed = sum(each.failure is not None and each.reached for each in tuned.candidates)
    count = f"{tried} of {len(tuned.candidates)}"
    return [
        tuned.model,
        tuned.dataset,
        tuned.contestant + (f" ({tuned.planner})" if tuned.planner else ""),
        f"{tuned.budget_seconds:.0f}",
        f"{tuned.trained_seconds:.0f} ({tuned.seconds:.0f})",
        f"{count}, {failed} failed" if failed else count,
        choice.described() if choice.steps else f"as it is: {choice.failure}",
        f"{1000 * choice.step_seconds:.1f}" if choice.step_seconds else "",
        f"{choice.step_seconds / usual.step_seconds:.2f}"
        if choice.step_seconds and usual.step_seconds
        else "",
        "unknown" if choice.steps_ratio is None else f"{choice.steps_ratio:.2f}",
    ]
