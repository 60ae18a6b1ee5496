"""Saving a checkpoint: every rank writes its files aside, then rank 0 gives the folder its name."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from hpc_lpm.data.dataset import OWN
from hpc_lpm.engine.checkpoint.store import (
    MANIFEST,
    CheckpointFile,
    Manifest,
    TrainedData,
    aside_of,
    begin_aside,
    publish,
    sha256_of,
    sync,
)
from hpc_lpm.engine.checkpoint.tensors import (
    kept_tensors,
    layer_tensors,
    optimizer_groups,
    optimizer_state,
)
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.records import RankRecord
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.errors import TrainingError


@dataclass(frozen=True)
class CheckpointedRun:
    """What a checkpoint must say about the run that saves it; see `Manifest`."""

    settings: dict[str, Any]
    data: TrainedData
    updates: int
    steps_an_epoch: int
    replicas: int
    cuts: list[int]

    @staticmethod
    def of_script(context: RunContext, step: int) -> "CheckpointedRun":
        """Describe the training of a script, which has neither a data set nor a length."""
        return CheckpointedRun(
            context.settings.model_dump(mode="json"),
            TrainedData("other", (), 1, OWN, None),
            step,
            max(1, step),
            context.copies,
            context.cuts,
        )


def save_checkpoint(
    path: Path,
    job: Job,
    state: TrainedState,
    record: RankRecord,
    history: History,
    about: CheckpointedRun,
    keep: int = 1,
) -> None:
    """Save a checkpoint under the name `path` and remove older ones (collective).

    If anything fails on the way, the newest complete checkpoint is left as it is.

    Args:
        path: the folder of the checkpoint, which must not exist yet.
        job: the ranks.
        state: what this rank has trained.
        record: what this rank has measured.
        history: where the training is.
        about: what the run is.
        keep: how many checkpoints are left in that folder.

    Raises:
        TrainingError: on every rank, if one of them cannot write.
    """

    def failure(problem: str, rank: str) -> TrainingError:
        return TrainingError(
            f"checkpoint {path} cannot be saved{rank}: {problem}: make room, or give an --out that "
            "all ranks can write to; an older checkpoint is left as it was."
        )

    errors = (OSError, SafetensorError)

    def finish() -> None:
        if job.rank != 0:
            return
        files = [file for of_rank in written for file in of_rank]
        manifest = Manifest(
            history=history,
            settings=about.settings,
            data=about.data,
            updates=about.updates,
            steps_an_epoch=about.steps_an_epoch,
            ranks=job.size,
            replicas=about.replicas,
            cuts=about.cuts,
            files=files,
        )
        manifest.write(aside_of(path) / MANIFEST)
        publish(path, keep)

    try:
        run_on_every_rank(
            job, lambda: begin_aside(path) if job.rank == 0 else None, errors, failure
        )
        written = run_on_every_rank(
            job, lambda: _write(aside_of(path), job.rank, state, record), errors, failure
        )
        run_on_every_rank(job, finish, errors, failure)
    except TrainingError:
        # On a full disk, half a checkpoint must not take the room of what others write.
        if job.rank == 0:
            shutil.rmtree(aside_of(path), ignore_errors=True)
        raise


def _write(
    folder: Path, rank: int, state: TrainedState, record: RankRecord
) -> list[CheckpointFile]:
    of_optimizer, values = optimizer_state(state)
    tensors = folder / f"rank-{rank}.safetensors"
    save_file({**layer_tensors(state), **of_optimizer, **kept_tensors(state)}, tensors)
    sync(tensors)
    figures = folder / f"rank-{rank}.json"
    of_state = {
        "optimizer": type(state.optimizer).__name__,
        "optimizer_values": values,
        "optimizer_groups": optimizer_groups(state),
    }
    record.model_copy(update=of_state).write(figures)
    return [entry for path in (tensors, figures) for entry in _entries(path, rank, state)]


def _entries(path: Path, rank: int, state: TrainedState) -> list[CheckpointFile]:
    """Describe a file, once for each of the stages that the rank holds."""
    size_bytes, sha256 = path.stat().st_size, sha256_of(path)
    return [
        CheckpointFile(
            name=path.name,
            rank=rank,
            replica=state.replica,
            start=stage[0],
            stop=stage[-1] + 1,
            size_bytes=size_bytes,
            sha256=sha256,
        )
        for stage in _neighbouring(sorted(state.layers))
    ]


def _neighbouring(layers: list[int]) -> list[list[int]]:
    """Return ascending numbers of layers in parts that have no gaps."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and parts[-1][-1] == layer - 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return parts
