"""Schedules under which a device holds several stages, or runs the halves of a backward apart."""

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    Instruction,
    Pass,
    Update,
)
from hpc_lpm.schedules.placement import Placement

PassT = TypeVar("PassT", Forward, Backward, BackwardInput, BackwardWeights)


class ChunkedSchedule(Schedule):
    """A flushing schedule whose order of one optimizer step is all that it says.

    A subclass defines `order`. Each device holds `chunks` stages, dealt out in a loop, or in a V
    where the schedule is `folded`. A stage's micro-batches are in flight until the gradients of its
    weights are there.

    Attributes:
        folded: whether stages are placed in a V.
    """

    flushes = True
    folded: bool = False

    def __init__(self) -> None:
        # Copies with other chunks share what is kept.
        self._placements: dict[tuple[int, int], Placement] = {}
        self._orders: dict[tuple[int, int, int, int], list[Pass]] = {}
        self._in_flight: dict[tuple[int, int, int, int], set[tuple[int, ...]]] = {}

    @abstractmethod
    def order(self, device: int, devices: int, micro_batches: int) -> Iterable[Pass]:
        """Yield the passes of `device` in an optimizer step of so many micro-batches, in order.

        Raises:
            InputError: if the schedule does not exist for so few micro-batches.
        """

    def placement(self, stages: int) -> Placement:
        """Return which device holds which stages.

        Raises:
            InputError: if so many stages cannot be placed.
        """
        key = self.chunks, stages
        if key not in self._placements:
            self._placements[key] = Placement.of_stages(
                stages, self.chunks, folded=self.folded, schedule=self.name
            )
        return self._placements[key]

    def compute(
        self,
        device: int,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int,
    ) -> Iterator[Instruction]:
        """Yield the passes of `device` a step after the other, each with an update behind it.

        A shorter last step is a whole one without its last micro-batches, so that it holds no more.
        """
        order = self.step(device, stages, micro_batches_per_step)
        first = 0
        for count in self.between_drains(micro_batches_per_step, total_micro_batches):
            yield from (item.later(first, 0) for item in order if item.micro_batch < count)
            yield Update(first // micro_batches_per_step)
            first += count

    def step(self, device: int, stages: int, micro_batches_per_step: int) -> list[Pass]:
        """Return the passes of `device` in a whole optimizer step, in order."""
        return self._order_of(device, self.placement(stages).devices, micro_batches_per_step)

    def in_flight(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return how many micro-batches `stage` holds at most between forward and gradients."""
        placement = self.placement(stages)
        device, chunk = placement.device(stage), placement.chunk(stage)
        together = self._in_flight_on(device, placement.devices, micro_batches_per_step)
        return max(held[chunk] for held in together)

    def in_flight_together(
        self, device: int, stages: int, micro_batches_per_step: int
    ) -> set[tuple[int, ...]]:
        """Return how many micro-batches a device's chunks hold at the same time, in every case."""
        return self._in_flight_on(device, self.placement(stages).devices, micro_batches_per_step)

    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return by how many micro-batches forwards are ahead at most: all but one in flight."""
        return self.in_flight(stage, stages, micro_batches_per_step, lead) - 1

    def _in_flight_on(self, device: int, devices: int, micro_batches: int) -> set[tuple[int, ...]]:
        key = self.chunks, device, devices, micro_batches
        if key not in self._in_flight:
            # Not `step`, which keeps the passes of every device that it was asked for.
            held = _held(self.order(device, devices, micro_batches))
            self._in_flight[key] = {
                tuple(of_chunk[chunk] for chunk in range(self.chunks)) for of_chunk in held
            }
        return self._in_flight[key]

    def _order_of(self, device: int, devices: int, micro_batches: int) -> list[Pass]:
        key = self.chunks, device, devices, micro_batches
        if key not in self._orders:
            self._orders[key] = list(self.order(device, devices, micro_batches))
        return self._orders[key]


class NumberedPasses:
    """Number the passes of one device: those of a kind and chunk are in ascending order.

    A whole backward counts as both of its halves.
    """

    def __init__(self) -> None:
        self._begun: dict[type[Pass], Counter[int]] = defaultdict(Counter)

    def of(self, kind: type[PassT]) -> Callable[[int], PassT]:
        """Return what makes the next pass of this kind, given its chunk."""
        counted = (BackwardInput, BackwardWeights) if kind is Backward else (kind,)
        begun = [self._begun[each] for each in counted]

        def following(chunk: int) -> PassT:
            micro_batch = begun[0][chunk]
            for each in begun:
                each[chunk] += 1
            return kind(micro_batch, chunk)

        return following


def _held(order: Iterable[Pass]) -> Iterator[Counter[int]]:
    """Yield by chunk how many micro-batches are in flight after each pass."""
    held: Counter[int] = Counter()
    for item in order:
        if isinstance(item, Forward):
            held[item.chunk] += 1
        elif isinstance(item, Backward | BackwardWeights):
            held[item.chunk] -= 1
        yield held
