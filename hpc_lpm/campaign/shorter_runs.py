"""A trial that has become longer goes on from a copy of the shorter one's checkpoint."""

import shutil
import tempfile
from pathlib import Path

from hpc_lpm.campaign.earlier_runs import earlier_runs
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import IDENTITY, Identity
from hpc_lpm.engine.checkpoint.store import FOLDER, LENGTH_SETTINGS, Checkpoint
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError

_COPIED = ("metrics.jsonl", "attempts.json")


def shorter_run(
    folder: CampaignFolder, trial: str, identity: Identity, settings: TrainSettings
) -> Path | None:
    """Return the folder of the run from which a trial can go on as if it had been trained at once.

    That run has kept its checkpoint and differs in nothing but its length, and training computes
    the same from there as from the start. Of several, the longest is returned.

    Args:
        folder: the folder of the campaign.
        trial: the name of the trial.
        identity: what the trial is computed from.
        settings: its settings.
    """
    found: dict[int, Path] = {}
    for path in earlier_runs(folder, trial):
        try:
            if _but_for_length(Identity.read(path / IDENTITY)) != _but_for_length(identity):
                continue
            # Imported here, because it imports torch.
            from hpc_lpm.engine.checkpoint.longer import continues_exactly

            checkpoint = Checkpoint.newest(path / FOLDER)
            if checkpoint is not None and continues_exactly(checkpoint, settings):
                found[checkpoint.manifest.history.step] = path
        except InputError:  # damaged, of another release, or longer
            continue
    return found[max(found)] if found else None


def copy_progress(shorter: Path, longer: Path) -> None:
    """Copy what a run has trained to the folder of a longer one, which may not exist yet.

    Raises:
        OSError: if that fails; the longer run then starts from the beginning.
    """
    longer.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (shorter / name).exists():
            shutil.copy2(shorter / name, longer / name)
    aside = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", dir=longer))
    try:
        shutil.copytree(shorter / FOLDER, aside, dirs_exist_ok=True)
        aside.rename(longer / FOLDER)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _but_for_length(identity: Identity) -> Identity:
    kept = {k: v for k, v in identity.settings.items() if k not in LENGTH_SETTINGS}
    return identity.model_copy(update={"settings": kept, "digest": ""})
