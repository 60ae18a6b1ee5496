"""Says at the start of a call which trials it trains and why, and which it keeps."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import DIGITS, IDENTITY, Identities, Identity
from hpc_lpm.campaign.launch_records import read_attempts
from hpc_lpm.campaign.wording import counted
from hpc_lpm.engine.checkpoint.store import FOLDER, newest_checkpoint
from hpc_lpm.engine.result import RESULT
from hpc_lpm.errors import InputError

_NEW = "new"
_LONGEST = 3


def describe_beginning(
    folder: CampaignFolder,
    identities: Identities,
    kept: int,
    training: Collection[str],
    damaged: Mapping[str, str],
) -> list[str]:
    """Return the lines that tell which trials are kept, which are trained, and why.

    Args:
        folder: the folder of the campaign.
        identities: what its trials are computed from.
        kept: the number of trials that it keeps.
        training: the names of the trials that this call trains.
        damaged: why the files of a trial are no good, by its name.
    """
    reasons: dict[str, int] = {}
    for name in training:
        reason = _why(folder, name, identities.runs[name], damaged.get(name))
        reasons[reason] = reasons.get(reason, 0) + 1
    start = f"kept {counted(kept, 'trial')}" if kept else ""
    if not training:
        return [start] if start else []
    trained = f"training {len(training)}" if kept else f"training {counted(len(training), 'trial')}"
    heading = ", ".join(filter(None, [start, trained]))
    return [heading, *(f"  {count} {reason}" for reason, count in reasons.items())]


def earlier_identities(folder: CampaignFolder, trial: str) -> list[Path]:
    """Return the folders in which a trial was trained from something else, the last one first."""
    pattern = re.compile(rf"{re.escape(trial)}(-[0-9a-f]{{{DIGITS}}})?")
    runs = folder.root / "runs"
    here = folder.run(trial)
    found = [
        path
        for path in runs.glob(f"{trial}*")
        if path != here and pattern.fullmatch(path.name) and (path / RESULT).exists()
    ]
    return sorted(found, key=lambda path: (path / RESULT).stat().st_mtime, reverse=True)


def _why(folder: CampaignFolder, name: str, now: Identity, damage: str | None) -> str:
    if damage is not None:
        return f"again because {damage.rstrip('.')}"
    here = folder.run(name)
    if newest_checkpoint(here / FOLDER) is not None:
        return "going on from a checkpoint"
    if read_attempts(here / "attempts.json"):
        return "again because no result is there"
    for earlier in earlier_identities(folder, name):
        try:
            changes = Identity.read(earlier / IDENTITY).changes_to(now)
        except InputError:
            return "again because no record tells what earlier results were computed from"
        shown = changes[:_LONGEST]
        more = len(changes) - len(shown)
        return f"again because {' and '.join(shown)}" + (f" and {more} more" if more else "")
    return _NEW
