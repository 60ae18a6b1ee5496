"""Says at the start of a call which trials it trains and why, and which it keeps."""

from collections.abc import Collection, Mapping
from pathlib import Path

from hpc_lpm.campaign.earlier_runs import earlier_runs
from hpc_lpm.campaign.identity import IDENTITY, Identities, Identity
from hpc_lpm.campaign.launch_records import read_attempts
from hpc_lpm.campaign.shorter_runs import shorter_run
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.wording import counted
from hpc_lpm.engine.checkpoint.store import FOLDER, newest_checkpoint
from hpc_lpm.errors import InputError

_NEW = "new"
_LONGEST = 3


def describe_beginning(
    steps: Steps,
    identities: Identities,
    training: Collection[str],
    damaged: Mapping[str, str],
) -> list[str]:
    """Return the lines that tell which trials are kept, which are trained, and why.

    Args:
        steps: the campaign.
        identities: what its trials are computed from.
        training: the names of the trials that this call trains.
        damaged: why the files of a trial are no good, by its name.
    """
    reasons: dict[str, int] = {}
    for name in training:
        reason = _why(steps, name, identities.runs[name], damaged.get(name))
        reasons[reason] = reasons.get(reason, 0) + 1
    kept = len(steps.trials) - len(training)
    start = f"kept {counted(kept, 'trial')}" if kept else ""
    if not training:
        return [start] if start else []
    trained = f"training {len(training)}" if kept else f"training {counted(len(training), 'trial')}"
    heading = ", ".join(filter(None, [start, trained]))
    return [heading, *(f"  {count} {reason}" for reason, count in reasons.items())]


def _why(steps: Steps, name: str, now: Identity, damage: str | None) -> str:
    folder = steps.folder
    if damage is not None:
        return f"again because {damage.rstrip('.')}"
    here = folder.run(name)
    if newest_checkpoint(here / FOLDER) is not None:
        return "going on from a checkpoint"
    if read_attempts(here / "attempts.json"):
        return "again because no result is there"
    if shorter_run(folder, name, now, steps.settings(name)) is not None:
        return "going on from the checkpoint of a shorter run"
    earlier = earlier_runs(folder, name)
    return _why_another(earlier[0], now) if earlier else _NEW


def _why_another(earlier: Path, now: Identity) -> str:
    try:
        changes = Identity.read(earlier / IDENTITY).changes_to(now)
    except InputError:
        return "again because no record tells what earlier results were computed from"
    shown = changes[:_LONGEST]
    more = len(changes) - len(shown)
    return f"again because {' and '.join(shown)}" + (f" and {more} more" if more else "")
