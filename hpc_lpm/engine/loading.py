"""Loads micro-batches: within a rank, or ahead of it in processes of their own.

Such processes are started anew (spawn) and load the data set themselves: a copy of a rank, as fork
makes it, must not be made once MPI has started.
"""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Protocol

from torch.utils.data import DataLoader, Sampler

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.requests import (
    DatasetRecipe,
    Refusal,
    Request,
    RequestedMicroBatches,
    serve_the_rank,
)
from hpc_lpm.data.samples import Samples
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.options import MOST_LOADER_WORKERS

_PROCESSES_A_CORE, _ALWAYS_ACCEPTED = 8, 16


class Loading(Protocol):
    """Loads the micro-batches that a rank is about to run."""

    def begin(self, batches: MicroBatches, numbers: Iterable[int]) -> None:
        """Say which micro-batches will be asked for next, in this order, or only some of them."""

    def inputs(self, batches: MicroBatches, n: int) -> Activation:
        """Return the model's inputs of a micro-batch."""

    def targets(self, batches: MicroBatches, n: int) -> Activation:
        """Return the targets of a micro-batch; where a rank needs both, after its inputs."""


class LoadingInTurn:
    """Loads each micro-batch when it is asked for."""

    def begin(self, batches: MicroBatches, numbers: Iterable[int]) -> None:
        """Do nothing."""

    def inputs(self, batches: MicroBatches, n: int) -> Activation:
        """Load the model's inputs of a micro-batch."""
        return batches.inputs(n)

    def targets(self, batches: MicroBatches, n: int) -> Activation:
        """Load the targets of a micro-batch."""
        return batches.targets(n)


class _Order(Sampler[Request]):
    """Hands out the requests of the micro-batches that are asked for next."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class LoadingAhead:
    """Loads micro-batches in processes, a few ahead of the one that is asked for.

    Those of which nobody has said that they will be asked for are loaded within the rank.

    Args:
        recipe: of the data set.
        dataset: the data set, as this rank has loaded it.
        processes: their number.
        inputs: whether this rank asks for inputs.
        targets: whether this rank asks for targets.
        resources: release the processes at the end of the run.
    """

    def __init__(
        self,
        recipe: DatasetRecipe,
        dataset: Dataset,
        processes: int,
        *,
        inputs: bool,
        targets: bool,
        resources: ExitStack,
    ) -> None:
        self._names = {id(samples): name for name, samples in dataset.parts.items()}
        self._order = _Order()
        self._both = inputs and targets
        self._loader: DataLoader[Any] | None = DataLoader(
            RequestedMicroBatches(recipe, inputs=inputs, targets=targets),
            batch_size=None,
            sampler=self._order,
            num_workers=processes,
            multiprocessing_context="spawn",
            worker_init_fn=serve_the_rank,
            persistent_workers=True,
        )
        self._part: Samples | None = None
        self._iterator: Iterator[Any] = iter(())
        self._numbers: deque[int] = deque()
        self._held: dict[int, Any] = {}
        resources.callback(self._close)
        with _main_program_unknown():
            # Processes start before training begins: a signal still ends this one at once.
            self._iterator = iter(self._loader)

    def begin(self, batches: MicroBatches, numbers: Iterable[int]) -> None:
        """Start to load these micro-batches."""
        assert self._loader is not None
        ordered = list(numbers)
        part = self._names[id(batches.samples)]
        self._order.requests = [Request(part, batches.chunks[n], batches.draws) for n in ordered]
        self._numbers = deque(batches.number(n) for n in ordered)
        self._held.clear()
        self._part = batches.samples
        self._iterator = iter(self._loader)

    def inputs(self, batches: MicroBatches, n: int) -> Activation:
        """Return the model's inputs of a micro-batch."""
        number = batches.number(n)
        if not self._will_arrive(batches, number):
            return batches.inputs(n)
        inputs, targets = self._arrived(number)
        if self._both:
            self._held[number] = (None, targets)
        return inputs

    def targets(self, batches: MicroBatches, n: int) -> Activation:
        """Return the targets of a micro-batch."""
        number = batches.number(n)
        if not self._will_arrive(batches, number):
            return batches.targets(n)
        return self._arrived(number)[1]

    def _will_arrive(self, batches: MicroBatches, number: int) -> bool:
        here = number in self._held or (bool(self._numbers) and number >= self._numbers[0])
        return batches.samples is self._part and here

    def _arrived(self, number: int) -> Any:
        while number not in self._held:
            arriving = self._numbers.popleft()
            arrived = next(self._iterator)
            if isinstance(arrived, Refusal):
                raise InputError(arrived.sentence)
            self._held[arriving] = arrived
        return self._held.pop(number)

    def _close(self) -> None:
        # The processes end once nothing refers to the iterator.
        self._iterator, self._loader = iter(()), None


def check_processes(processes: int) -> None:
    """Refuse more processes for a rank than this machine has a use for.

    Raises:
        InputError: saying how many are accepted here.
    """
    cores = os.cpu_count() or 1
    most = min(MOST_LOADER_WORKERS, max(_ALWAYS_ACCEPTED, _PROCESSES_A_CORE * cores))
    if processes > most:
        raise InputError(
            f"--loader-workers is {processes}, and this machine has {cores} cores: accepted are up "
            f"to {most} for each rank, since each of them is a process with a copy of torch and of "
            "the data; give fewer."
        )


@contextmanager
def deaths_explained(rank: int) -> Iterator[None]:
    """Explain the death of a process that loads ahead, which torch raises wherever the rank is.

    Raises:
        TrainingError: if such a process has died.
    """
    try:
        yield
    except (RuntimeError, TrainingError) as error:
        found = error.__cause__ if isinstance(error, TrainingError) else error
        described = " ".join(str(found).split()).rstrip(".")
        if not (isinstance(found, RuntimeError) and described.startswith("DataLoader worker")):
            raise
        raise TrainingError(
            f"rank {rank}: a process of --loader-workers has died ({described}), often for want of "
            "memory: give fewer, or find out what ended it."
        ) from error


@contextmanager
def _main_program_unknown() -> Iterator[None]:
    """Let processes that are started now not import the program that runs here.

    They need nothing of it, and a program that is not guarded by its name would run again.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def recipe_of(settings: TrainSettings) -> DatasetRecipe:
    """Return the recipe of a run's data set."""
    return DatasetRecipe(
        settings.dataset,
        settings.data_dir,
        settings.seed,
        settings.validation,
        settings.normalize,
        settings.augment,
    )
