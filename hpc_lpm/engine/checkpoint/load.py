"""Going on with a run: from its finished result, or from a checkpoint, whoever saved its layers."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.engine.checkpoint.own_files import MANIFEST
from hpc_lpm.engine.checkpoint.store import Checkpoint, CheckpointFile
from hpc_lpm.engine.checkpoint.tensors import (
    restore_groups,
    restore_kept,
    restore_layers,
    restore_optimizer,
)
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.rank_meter import RankMeter
from hpc_lpm.engine.records import RankRecord, StateValue
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.runners.runner import TrainedState
from hpc_lpm.engine.settings import computing_settings, first_difference
from hpc_lpm.errors import InputError


def finished_result(
    path: Path, settings: dict[str, object], cuts: list[int], ranks: int
) -> RunResult | None:
    """Return the result of a finished run, or None if this run is another one or not finished.

    Args:
        path: the run's `result.json`, which need not exist.
        settings: what `computing_settings` returns for this run.
        cuts: the cut positions of this run's plan.
        ranks: the number of ranks of this run.
    """
    if not path.exists():
        return None
    try:
        result = RunResult.read(path)
    except InputError:
        return None
    if (result.cuts, result.ranks) != (cuts, ranks):
        return None
    return None if first_difference(computing_settings(result.settings), settings) else result


def restore(
    checkpoint: Checkpoint, job: Job, cuts: list[int], state: TrainedState, meter: RankMeter
) -> History:
    """Restore this rank from a checkpoint and return the history of the run (collective).

    If the checkpoint was saved by another partition, the measurements of single ranks start anew.

    Args:
        checkpoint: the checkpoint to resume from.
        job: the ranks.
        cuts: the cut positions of this run's plan.
        state: the state of this rank, which has not trained yet.
        meter: takes over what this rank had measured before the interruption.

    Raises:
        InputError: on every rank, if a file is damaged or the model is a different one.
    """

    def put_back() -> None:
        reader = CheckpointReader(checkpoint)
        reader.restore(state)
        if same_partition:
            meter.add_earlier(reader.record(job.rank))
            return
        of_ranks = [reader.record(rank).segments for rank in range(saved.ranks)]
        if len({len(segments) for segments in of_ranks}) > 1:
            raise checkpoint.damaged("the records of its ranks, which count different drains")
        history.earlier += [list(segment) for segment in zip(*of_ranks, strict=True)]

    saved = checkpoint.manifest
    of_this_rank = (file for file in saved.files if file.rank == job.rank)
    held = {layer for file in of_this_rank for layer in range(file.start, file.stop)}
    same_layers = all(job.all_gather(held == set(state.layers)))
    same_partition = saved.ranks == job.size and saved.cuts == cuts and same_layers
    history = deepcopy(saved.history)
    run_on_every_rank(job, put_back, (InputError,), lambda problem, _: InputError(f"{problem}."))
    history.interruptions += 1
    return history


class CheckpointReader:
    """Reads the files of a checkpoint, after checking each one's hash."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        # A file is hashed and opened once, however many tensors are read from it.
        self._opened = cache(self._open)
        self.record = cache(self._record)

    def restore(self, state: TrainedState) -> None:
        """Restore layers, optimizer and learning rate; the partition may have changed.

        Raises:
            InputError: if a file is damaged or holds a different model.
        """
        saved, own = self.record(0).optimizer, type(state.optimizer).__name__
        if saved not in ("", own):
            raise InputError(
                f"checkpoint {self._checkpoint.path} holds the state of the optimizer {saved}, "
                f"this training has {own}: train on with the same one."
            )
        restore_layers(state, self._tensor)
        restore_optimizer(state, self._optimizer_of, self._checkpoint.manifest.history.step)
        restore_kept(state, lambda layer: self._tensors_of("kept", layer))

    def restore_groups(self, state: TrainedState) -> None:
        """Restore the settings of the optimizer's groups, such as the rate that a script had set.

        They are those of the rank that held the first of these layers.
        """
        record = self.record(self._rank_with(min(state.layers), 0))
        restore_groups(state, record.optimizer_groups)

    def _tensor(self, layer: int, name: str, replica: int, shape: torch.Size) -> Tensor:
        held = self._opened(self._rank_with(layer, replica))
        tensor: Tensor | None = held.get_tensor(name) if name in held.keys() else None  # noqa: SIM118
        if tensor is None or tensor.shape != shape:
            found = "no such tensor" if tensor is None else f"shape {list(tensor.shape)}"
            raise InputError(
                f"--resume: checkpoint {self._checkpoint.path} has {found} for {name}, the model "
                f"has shape {list(shape)}: give the model that was trained, or another --out."
            )
        return tensor

    def _optimizer_of(
        self, layer: int
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, StateValue]]]:
        rank = self._rank_with(layer, 0)
        return self._tensors_of("optimizer", layer), self.record(rank).optimizer_values

    def _tensors_of(self, kind: str, layer: int) -> dict[str, Tensor]:
        held = self._opened(self._rank_with(layer, 0))
        prefix = f"{kind}.{layer}."
        return {name: held.get_tensor(name) for name in held.keys() if name.startswith(prefix)}  # noqa: SIM118

    def _rank_with(self, layer: int, replica: int) -> int:
        for file in self._checkpoint.manifest.files:
            if file.start <= layer < file.stop and file.replica == replica:
                return file.rank
        raise self._checkpoint.damaged(f"{MANIFEST}: no file of layer {layer}")

    def _open(self, rank: int) -> Any:
        return self._checkpoint.opened_tensors(self._file(rank, ".safetensors"))

    def _record(self, rank: int) -> RankRecord:
        return RankRecord.read(self._checkpoint.checked(self._file(rank, ".json")))

    def _file(self, rank: int, suffix: str) -> CheckpointFile:
        for file in self._checkpoint.manifest.files:
            if file.rank == rank and file.name.endswith(suffix):
                return file
        raise self._checkpoint.damaged(f"{MANIFEST}: no {suffix} of rank {rank}")
