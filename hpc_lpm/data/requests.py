"""Loads requested micro-batches in a process of its own, which needs the data set's name alone.

Little is imported here, since each such process imports it when it starts.
"""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.preparation import prepared_dataset
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.data.samples import Draws
from hpc_lpm.errors import InputError
from hpc_lpm.options import Normalization
from hpc_lpm.stop_signals import STOPPING

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class DatasetRecipe:
    """What a process needs in order to load the data set of a run itself."""

    identifier: str
    data_dir: Path | None
    seed: int
    validation: float
    normalize: Normalization
    augment: str | None

    def load(self) -> Dataset:
        """Load the data set and prepare it for the run.

        Raises:
            InputError: if that fails.
        """
        return prepared_dataset(
            load_dataset(self.identifier, self.data_dir),
            seed=self.seed,
            validation=self.validation,
            normalize=self.normalize,
            augment=self.augment,
        )


@dataclass(frozen=True)
class Request:
    """One micro-batch to load: samples of a part of the data set."""

    part: str
    indices: Tensor
    draws: Draws | None


@dataclass(frozen=True)
class Refusal:
    """Why a micro-batch could not be loaded; an exception would come with a traceback."""

    sentence: str


class RequestedMicroBatches(torch.utils.data.Dataset[Any]):
    """Answers requests by (inputs, targets), and loads the data set for the first of them.

    Args:
        recipe: of the data set.
        inputs: whether inputs are wanted; None stands for them otherwise.
        targets: whether targets are wanted.
    """

    def __init__(self, recipe: DatasetRecipe, *, inputs: bool, targets: bool) -> None:
        self._recipe = recipe
        self._inputs = inputs
        self._targets = targets
        self._dataset: Dataset | None = None

    def __getitem__(self, request: Request) -> Any:
        try:
            if self._dataset is None:
                self._dataset = self._recipe.load()
            samples = self._dataset.parts[request.part]
            return (
                samples.inputs(request.indices, request.draws) if self._inputs else None,
                samples.targets(request.indices, request.draws) if self._targets else None,
            )
        except InputError as error:
            return Refusal(str(error))


def serve_the_rank(_: int) -> None:
    """Let a process that loads end with its rank, and leave the signals to stop to that rank."""
    for number in STOPPING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_rank, name="rank watch", daemon=True).start()


def _end_with_the_rank() -> None:
    """End this process once its rank is gone, though it may wait for room in a queue."""
    rank = multiprocessing.parent_process()
    while rank is not None and os.getppid() == rank.pid:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
