"""The folder of a run's checkpoints: a checkpoint is in it as a whole or not at all."""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from hpc_lpm.data.moments import Moments
from hpc_lpm.engine.checkpoint.own_files import (
    HIDDEN,
    MANIFEST,
    NAME,
    PARTIAL,
    PENDING,
    REPLACED,
    is_own_checkpoint,
    own_leftovers,
    remove_checkpoint,
)
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.settings import computing_settings, first_difference
from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile, follow_umask
from hpc_lpm.options import MAX_SEED
from hpc_lpm.sealed_file import SealedFile
from hpc_lpm.typed_values import describe_validation_error

if TYPE_CHECKING:
    from torch import Tensor

    from hpc_lpm.data.dataset import Dataset

FOLDER, BEST = "checkpoint", "best"
_OF_LAYER = re.compile(r"layer\.([0-9]{1,9})\.(.+)")
_ATTEMPTS, _BETWEEN_ATTEMPTS_SECONDS = 20, 0.05
"""To remove a folder in which another rank begins a file at the same moment."""


LENGTH_SETTINGS = ("epochs", "steps", "patience", "patience_metric", "patience_mode")
"""The settings that decide where a run ends, and nothing about the steps until then."""


class CheckpointFile(BaseModel):
    """One file of a checkpoint, which holds layers [start, stop) of one replica.

    A file that holds further layers has an entry for each part of them without gaps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[^/\x00]+$")
    rank: int = Field(ge=0)
    replica: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=0)
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class TrainedData:
    """The data that a model was trained on, as `DataShape` tells; `moments` are those of images."""

    kind: str
    input_shape: tuple[int, ...]
    classes: int
    task: str
    moments: Moments | None

    @staticmethod
    def of(dataset: "Dataset") -> "TrainedData":
        """Describe the data of a run."""
        shape = dataset.shape
        return TrainedData(
            shape.kind, shape.input_shape, shape.classes, shape.task, dataset.train.moments
        )


class RemakingSettings(BaseModel):
    """The settings of a run that are needed to make its model and data again."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str
    dataset: str
    strategy: str
    seed: int = Field(ge=0, le=MAX_SEED)
    data_dir: Path | None = None
    loss: str | None = None
    metric: tuple[str, ...] = ()


class Manifest(SealedFile):
    """`manifest.json`: the table of contents of a checkpoint, written after all other files.

    `settings` are those of the run, as a settings file holds them; `updates` and `steps_an_epoch`
    count the optimizer steps that it was to have and those of a whole epoch.
    """

    kind: ClassVar[str] = "checkpoint manifest"

    history: History
    settings: dict[str, Any]
    data: TrainedData
    updates: int
    steps_an_epoch: int
    ranks: int
    replicas: int
    cuts: list[int] = Field(
        min_length=2, description="the K+1 cut positions; [0, L] without a partition"
    )
    files: list[CheckpointFile]

    @property
    def remaking(self) -> RemakingSettings:
        """Those of the settings by which model and data can be made again."""
        return RemakingSettings.model_validate(self.settings)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        try:
            self.remaking  # noqa: B018
        except ValidationError as error:
            raise ValueError(f"settings.{describe_validation_error(error)}") from None
        layers = self.cuts[-1]
        for file in self.files:
            if not file.start <= file.stop <= layers:
                raise ValueError(
                    f"{file.name} holds layers [{file.start}, {file.stop}) of a model with {layers}"
                )
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @staticmethod
    def of_run(run: Path, *, best: bool = False) -> "Checkpoint":
        """Open the newest checkpoint of a run, or that of its best evaluation.

        Args:
            run: the folder of the run.
            best: whether the checkpoint that `--keep-best` keeps is meant.

        Raises:
            InputError: if there is no such folder or checkpoint, or a file of it is damaged.
        """
        if not run.is_dir():
            raise InputError(
                f"run {run} is no folder: name the --out folder of a run of `hpc-lpm train`."
            )
        folder = run / (BEST if best else FOLDER)
        checkpoint = Checkpoint.newest(folder)
        if checkpoint is None:
            trained = (
                "trained with --keep-best" if best else "not trained with --checkpoint-epochs 0"
            )
            raise InputError(
                f"run {run} has no checkpoint in {folder}: name the --out folder of a run that was "
                f"{trained}, or train it again."
            )
        return checkpoint

    @staticmethod
    def newest(folder: Path) -> "Checkpoint | None":
        """Open the newest checkpoint in a folder and check the sizes of its files.

        Returns None if there is no checkpoint.

        Raises:
            InputError: if a file is missing or has another size.
        """
        path = newest_checkpoint(folder)
        return None if path is None else Checkpoint.opened(path)

    @staticmethod
    def opened(path: Path) -> "Checkpoint":
        """Open one checkpoint and check the sizes of its files.

        Raises:
            InputError: if a file is missing, has another size, or cannot be looked at.
        """
        opened = Checkpoint(path, Manifest.read(path / MANIFEST))
        for file in opened.manifest.files:
            try:
                found = f"{(path / file.name).stat().st_size} bytes"
            except FileNotFoundError:
                found = "no such file"
            except OSError as error:  # as where a disk or a server fails
                found = f"it cannot be looked at ({error.strerror or error})"
            if found != f"{file.size_bytes} bytes":
                raise opened.damaged(f"{file.name}: {found}, {file.size_bytes} bytes were saved")
        return opened

    def going_on(self, history: History) -> "Checkpoint":
        """Return the same checkpoint with another history."""
        return replace(self, manifest=self.manifest.model_copy(update={"history": history}))

    def damaged(self, what: str) -> InputError:
        """Return the error to raise if a file is not what was saved."""
        return InputError(
            f"checkpoint {self.path} is damaged at {what}: restore the file, or train without "
            "--resume to start again."
        )

    def layer_tensors(self) -> "dict[tuple[int, str], Tensor]":
        """Read parameters and buffers by their layer's index and their name there.

        Of several replicas, buffers are those of the first.

        Raises:
            InputError: if a file is not what was saved.
        """
        tensors = {}
        for file in self.manifest.files:
            if file.replica != 0 or not file.name.endswith(".safetensors"):
                continue
            with self.opened_tensors(file) as opened:
                for name in opened.keys():  # noqa: SIM118
                    if found := _OF_LAYER.fullmatch(name):
                        tensors[int(found[1]), found[2]] = opened.get_tensor(name)
        return tensors

    def opened_tensors(self, file: CheckpointFile) -> Any:
        """Open a file of tensors, after checking its hash.

        Raises:
            InputError: if it is not what was saved.
        """
        try:
            return safe_open(self.checked(file), framework="pt")
        except SafetensorError as error:
            raise self.damaged(f"{file.name}: {error}") from None

    def check_bytes(self, rank: int, ranks: int) -> None:
        """Check the hashes of this rank's share of the files.

        Raises:
            InputError: if one is not what was saved.
        """
        by_name = {file.name: file for file in self.manifest.files}
        for file in list(by_name.values())[rank::ranks]:
            self.checked(file)

    def checked(self, file: CheckpointFile) -> Path:
        """Return the path of a file of this checkpoint, after checking its hash.

        Raises:
            InputError: if it is not what was saved.
        """
        path = self.path / file.name
        try:
            found = sha256_of(path)
        except OSError as error:
            raise self.damaged(f"{file.name}: {error}") from None
        if found != file.sha256:
            raise self.damaged(f"{file.name}: its bytes are not those that were saved")
        return path

    def check(self, settings: dict[str, object], replicas: int, layers: int) -> None:
        """Check that a run computes the same as the run that saved this checkpoint, up to here.

        How long the runs are to be may differ.

        Args:
            settings: those of the run, as a settings file holds them.
            replicas: the replicas of every stage, or the ranks that each hold the whole model.
            layers: the number of layers of the model.

        Raises:
            InputError: naming the first setting that differs.
        """
        saved = self.manifest
        ours = {
            **_settings_up_to(saved.history.step, settings),
            "replicas": replicas,
            "layers of the model": layers,
        }
        theirs = {
            **_settings_up_to(saved.history.step, saved.settings),
            "replicas": saved.replicas,
            "layers of the model": saved.cuts[-1],
        }
        if difference := first_difference(theirs, ours):
            name, before, now = difference
            raise InputError(
                f"--resume: checkpoint {self.path} was saved with {name} {before!r}, this run has "
                f"{now!r}: give the same settings, or another --out."
            )

    def check_data(self, steps_an_epoch: int) -> None:
        """Check that a run has as much training data as the run that saved this checkpoint.

        With the same batches, an epoch of other data would be taken for one of these.

        Args:
            steps_an_epoch: the optimizer steps of a whole epoch of the run.

        Raises:
            InputError: if its epochs are longer or shorter.
        """
        if steps_an_epoch != (saved := self.manifest.steps_an_epoch):
            raise InputError(
                f"--resume: checkpoint {self.path} was saved with data of {saved} optimizer steps "
                f"an epoch, this run has data of {steps_an_epoch}: give the same data, or another "
                "--out."
            )


def _settings_up_to(step: int, settings: dict[str, object]) -> dict[str, object]:
    """Return the settings that determine what the first steps compute, under dotted names."""
    found = {
        name: value
        for name, value in computing_settings(settings).items()
        if name not in LENGTH_SETTINGS
    }
    drains = found["drain_at"]
    assert isinstance(drains, Sequence)
    return {**found, "drain_at": [drain for drain in drains if drain < step]}


def checkpoint_name(history: History, *, evaluation_is_due: bool) -> str:
    """Return the name of a checkpoint that is saved at this point of a training."""
    return f"step-{history.step}{PENDING if evaluation_is_due else ''}"


def checkpoint_in(folder: Path) -> Checkpoint:
    """Open the newest checkpoint of a folder of checkpoints or of a run, or one that is named.

    Raises:
        InputError: if there is none, or a file of it is damaged.
    """
    if (folder / MANIFEST).exists():
        return Checkpoint.opened(folder)
    found = Checkpoint.newest(folder) or Checkpoint.newest(folder / FOLDER)
    if found is None:
        raise InputError(
            f"{folder} holds no checkpoint, accepted are a folder that Engine.save was given, the "
            "--out folder of a run of `hpc-lpm train`, and a checkpoint of either: name one."
        )
    return found


def opened_alike(folder: Path, job: Job) -> Checkpoint:
    """Open on every rank the checkpoint that rank 0 finds as `checkpoint_in` does (collective).

    Other nodes may still see what was in the folder before, as over NFS.

    Raises:
        InputError: on every rank, if there is none, or one of them cannot open it.
    """

    def find() -> Path | None:
        return checkpoint_in(folder).path.relative_to(folder) if job.rank == 0 else None

    def failure(problem: str, rank: str) -> InputError:
        return InputError(f"{problem}{rank}.")

    found = run_on_every_rank(job, find, (InputError,), failure)[0]
    assert found is not None
    path = folder / found
    opened: list[Checkpoint] = []
    run_on_every_rank(job, lambda: opened.append(Checkpoint.opened(path)), (InputError,), failure)
    return opened[0]


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or None; one that is being written does not count."""
    return next(iter(checkpoints_of(folder)), None)


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, the newest first."""
    found = []
    for path in folder.glob("step-*"):
        if match := NAME.fullmatch(path.name):
            found.append((int(match[1]), match[2] is None, path))
    return [path for *_, path in sorted(found, reverse=True)]


def newest_sound_checkpoint(folder: Path, job: Job) -> tuple[Checkpoint | None, str | None]:
    """Open the newest checkpoint that is as it was saved (collective).

    Returns the checkpoint, None if there is none, and a sentence if a newer one is damaged.

    Raises:
        InputError: on every rank, if all are damaged.
    """
    first: str | None = None
    paths = job.broadcast(checkpoints_of(folder) if job.rank == 0 else None)
    for path in paths:
        opened, problem = None, None
        try:
            opened = Checkpoint.opened(path)
            if len(paths) > 1:  # what falls back on nothing is checked as it is read
                opened.check_bytes(job.rank, job.size)
        except InputError as error:
            problem = str(error)
        problem = next(filter(None, job.all_gather(problem)), None)
        if problem is None:
            return opened, first
        first = first or problem
    if first is not None:
        raise InputError(first)
    return None, None


def begin_aside(path: Path) -> Path:
    """Make an empty folder beside `path` to write a checkpoint into, and return it.

    Nobody else can look into it until it is published. What earlier attempts have left there is
    removed.

    Raises:
        OSError: if the folder cannot be made, or what bears its name is no checkpoint of ours.
    """
    if path.exists() and not is_own_checkpoint(path):
        reason = "it is no checkpoint of hpc-lpm, which one would replace"
        raise FileExistsError(errno.EEXIST, reason, str(path))
    for left in own_leftovers(path.parent):
        shutil.rmtree(left)
    aside = aside_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir(mode=0o700)
    return aside


def aside_of(path: Path) -> Path:
    """Return the folder in which the checkpoint `path` is written before it gets its name."""
    return path.with_name(f"{HIDDEN}{path.name}{PARTIAL}")


def publish(path: Path, keep: int = 1) -> None:
    """Give a completely written checkpoint its name, then remove older ones but for the newest.

    What cannot be removed now is removed with the next one.

    Args:
        path: the checkpoint.
        keep: how many there may be, this one included.

    Raises:
        OSError: if that fails; the older checkpoints are then still there.
    """
    aside = aside_of(path)
    follow_umask(aside)
    sync(aside)
    if path.exists():  # of another training that has saved here before
        path.rename(path.with_name(f"{HIDDEN}{path.name}{REPLACED}"))
    aside.rename(path)
    sync(path.parent)
    own = filter(is_own_checkpoint, checkpoints_of(path.parent))
    others = [other for other in own if other != path]
    for other in [*others[keep - 1 :], *own_leftovers(path.parent, REPLACED)]:
        # Over NFS, a folder stays as long as somebody reads a file in it.
        with suppress(OSError):
            remove_checkpoint(other)


def write_into(folder: Path, name: str, file: VersionedFile) -> Path:
    """Write a file into a folder that exists, whole or not at all, and return its path.

    A folder that another rank has removed, to give up a checkpoint, is not made again.

    Raises:
        OSError: if that fails.
    """
    written = folder / f"{HIDDEN}{name}"
    written.write_text(file.text(), encoding="utf-8")
    sync(written)
    return written.replace(folder / name)


def give_up(path: Path) -> None:
    """Remove what is written of a checkpoint, though other ranks may still be at it."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(aside_of(path), ignore_errors=True)
        if not aside_of(path).exists():
            return
        time.sleep(_BETWEEN_ATTEMPTS_SECONDS)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk (fsync).

    Raises:
        OSError: if that fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
