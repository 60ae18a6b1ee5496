"""A checkpoint that was found, and whether a run may go on from it."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.engine.checkpoint.folder import newest_checkpoint
from hpc_lpm.engine.checkpoint.manifest import MANIFEST, Manifest
from hpc_lpm.engine.settings import first_difference
from hpc_lpm.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and its manifest."""

    path: Path
    manifest: Manifest

    @staticmethod
    def newest(folder: Path) -> "Checkpoint | None":
        """Open the newest checkpoint in a folder, if there is one, and look at its files' sizes.

        Raises:
            InputError: if it is not whole.
        """
        path = newest_checkpoint(folder)
        if path is None:
            return None
        opened = Checkpoint(path, Manifest.read(path / MANIFEST))
        for file in opened.manifest.files:
            try:
                found = f"{(path / file.name).stat().st_size} bytes"
            except FileNotFoundError:
                found = "no such file"
            if found != f"{file.size_bytes} bytes":
                raise opened.damaged(f"{file.name}: {found}, {file.size_bytes} bytes were saved")
        return opened

    def damaged(self, what: str) -> InputError:
        """Return what to raise if a file is not what was saved."""
        return InputError(
            f"checkpoint {self.path} is damaged at {what}: restore the file, or train without "
            "--resume to start again."
        )

    def check(self, settings: dict[str, object], replicas: int, layers: int) -> None:
        """Check that a run computes what the one that saved this would have.

        Args:
            settings: as of `agreeing_settings`.
            replicas: of every stage, or ranks with the whole model each.
            layers: of the model.

        Raises:
            InputError: naming the first setting that differs.
        """
        ours = {**settings, "replicas": replicas, "layers of the model": layers}
        saved = self.manifest
        theirs = {
            **saved.settings,
            "replicas": saved.replicas,
            "layers of the model": saved.cuts[-1],
        }
        if difference := first_difference(theirs, ours):
            name, before, now = difference
            raise InputError(
                f"--resume: checkpoint {self.path} was saved with {name} {before!r}, this run has "
                f"{now!r}: give the same settings, or another --out."
            )
