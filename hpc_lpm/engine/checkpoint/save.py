"""What a checkpoint consists of, and how a rank's part of it gets into files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hpc_lpm.data.dataset import OWN
from hpc_lpm.engine.checkpoint.store import (
    CheckpointFile,
    Manifest,
    TrainedData,
    sha256_of,
    sync,
    write_into,
)
from hpc_lpm.engine.checkpoint.tensors import (
    kept_tensors,
    layer_tensors,
    on_host,
    optimizer_groups,
    optimizer_state,
)
from hpc_lpm.engine.history import History
from hpc_lpm.engine.records import RankRecord
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.files import follow_umask

WRITING_ERRORS = (OSError, SafetensorError)
"""What writing raises where there is no room, no permission or no disk any more."""


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

    def manifest(self, history: History, ranks: int) -> Manifest:
        """Return the manifest of a checkpoint without its files; training goes on meanwhile."""
        evaluations = [replace(each) for each in history.evaluations]
        return Manifest(
            history=replace(
                history,
                evaluations=evaluations,
                drains=list(history.drains),
                earlier=list(history.earlier),
                resume_changes=list(history.resume_changes),
                rewinds=list(history.rewinds),
            ),
            settings=self.settings,
            data=self.data,
            updates=self.updates,
            steps_an_epoch=self.steps_an_epoch,
            ranks=ranks,
            replicas=self.replicas,
            cuts=self.cuts,
            files=[],
        )


@dataclass(frozen=True)
class RankPart:
    """What one rank writes into a checkpoint.

    `tensors` are those that are trained, or copies of them; nothing else of it changes when
    training goes on. `first` is run before the checkpoint may count.
    """

    tensors: dict[str, Tensor]
    figures: RankRecord
    replica: int
    stages: list[range]
    first: Callable[[], None]

    @staticmethod
    def of(
        state: TrainedState, record: RankRecord, first: Callable[[], None] = lambda: None
    ) -> "RankPart":
        """Return this rank's part of a checkpoint of what it has trained."""
        of_optimizer, values = optimizer_state(state)
        # The intervals of the newest segment are dropped when the next one begins.
        newest = [replace(each, intervals=list(each.intervals)) for each in record.segments[-1:]]
        figures = record.model_copy(
            update={
                "segments": [*record.segments[:-1], *newest],
                "optimizer": type(state.optimizer).__name__,
                "optimizer_values": values,
                "optimizer_groups": optimizer_groups(state),
            }
        )
        return RankPart(
            {**layer_tensors(state), **of_optimizer, **kept_tensors(state)},
            figures,
            state.replica,
            _neighbouring(sorted(state.layers)),
            first,
        )

    def write(self, folder: Path, rank: int) -> list[CheckpointFile]:
        """Write the files of this rank into a folder, and describe them.

        Raises:
            OSError: if that fails, or SafetensorError.
        """
        self.first()
        tensors = folder / f"rank-{rank}.safetensors"
        save_file({name: on_host(tensor) for name, tensor in self.tensors.items()}, tensors)
        follow_umask(tensors)  # the folder is private until it is published
        sync(tensors)
        figures = write_into(folder, f"rank-{rank}.json", self.figures)
        return [entry for path in (tensors, figures) for entry in self._entries(path, rank)]

    def _entries(self, path: Path, rank: int) -> list[CheckpointFile]:
        """Describe a file, once for each of the stages that the rank holds."""
        size_bytes, sha256 = path.stat().st_size, sha256_of(path)
        return [
            CheckpointFile(
                name=path.name,
                rank=rank,
                replica=self.replica,
                start=stage.start,
                stop=stage.stop,
                size_bytes=size_bytes,
                sha256=sha256,
            )
            for stage in self.stages
        ]


def _neighbouring(layers: list[int]) -> list[range]:
    """Return ascending numbers of layers in parts that have no gaps."""
    parts: list[range] = []
    for layer in layers:
        if parts and parts[-1].stop == layer:
            parts[-1] = range(parts[-1].start, layer + 1)
        else:
            parts.append(range(layer, layer + 1))
    return parts
