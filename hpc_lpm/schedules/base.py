"""A schedule: the order of computation at every stage, and all that follows from it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from copy import copy
from fractions import Fraction
from math import ceil
from typing import Self

from hpc_lpm.errors import InputError
from hpc_lpm.schedules.insertions import (
    TiedDevices,
    with_communication,
    with_replays,
    with_replicas,
    with_tied_weights,
)
from hpc_lpm.schedules.instructions import Instruction, Programme
from hpc_lpm.schedules.ordering import check_arguments, forwards_ahead
from hpc_lpm.schedules.placement import Placement

LEAD, WEIGHTS, CHUNKS = "lead", "weights", "chunks"
"""The options that only some schedules take: the lead, the policy for lagged weights, and how many
stages a device holds."""

_NOTHING: dict[str, object] = {LEAD: 1, WEIGHTS: "live"}
"""Values of these options that ask for nothing."""


class Schedule(ABC):
    """The order in which stages compute, and what the planner and the engine ask about it.

    A schedule of one's own is a subclass that sets `name`, `description` and `flushes` and defines
    `ahead`; one whose order is not `forwards_ahead` overrides `compute` as well. Everything else
    follows. Stages are counted from 0, micro-batches over the whole programme; M stands for
    `micro_batches_per_step`, `lead` for how many micro-batches each stage is to run ahead of the
    next, and `replicas` for how many copies of every stage train. Each device holds one stage, but
    under a `ChunkedSchedule`, which places several there.

    Attributes:
        name: what users call it.
        description: what it does, in a few words.
        flushes: whether the pipeline is empty at every update, so that no weight version lags.
        takes_lead: whether `lead` changes anything.
        alternates: whether after the warm-up every stage alternates for ever between forward
            n + `ahead` and backward n. The planner knows then how long stages wait for messages.
        chunks: how many stages each device holds.
        takes_chunks: whether that number is the user's choice.
        splits_backward: whether the two halves of a backward may run at different times.
    """

    name: str
    description: str
    flushes: bool
    takes_lead: bool = False
    alternates: bool = False
    chunks: int = 1
    takes_chunks: bool = False
    splits_backward: bool = False

    def with_chunks(self, chunks: int | None) -> Self:
        """Return the same schedule with so many stages on each device, None for the usual number.

        Raises:
            InputError: if the number is not the user's choice, or is none.
        """
        if chunks is None or chunks == self.chunks:
            return self
        if not self.takes_chunks:
            raise InputError(
                f"--chunks is {chunks}, but under schedule {self.name!r} each device holds "
                f"{self.chunks}: leave --chunks out, or use a schedule that takes it."
            )
        if chunks < 1:
            raise InputError(f"--chunks is {chunks}, at least 1 is accepted.")
        changed = copy(self)
        changed.chunks = chunks
        return changed

    def placement(self, stages: int) -> Placement:
        """Return which device holds which stages.

        Raises:
            InputError: if so many stages cannot be placed.
        """
        return Placement.of_stages(stages, self.chunks, folded=False, schedule=self.name)

    def check_fits(self, devices: int, micro_batches_per_step: int) -> None:
        """Check that the schedule exists for so many devices and micro-batches per step.

        Raises:
            InputError: if it was written for other numbers alone.
        """
        return

    @abstractmethod
    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return by how many micro-batches forwards are ahead of backwards at `stage`."""

    def in_flight(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return how many micro-batches `stage` holds at most between forward and backward.

        Replicas of the stages change nothing: an update comes later, but no forward earlier.
        """
        return self.ahead(stage, stages, micro_batches_per_step, lead) + 1

    def compute(
        self,
        device: int,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int,
    ) -> Iterator[Instruction]:
        """Yield forwards, backwards and updates of `device` in order.

        The pipeline empties after every step where the schedule flushes, else at the very end.
        """
        ahead = self.ahead(device, stages, micro_batches_per_step, lead)
        first = 0
        for count in self.between_drains(micro_batches_per_step, total_micro_batches):
            yield from forwards_ahead(first, count, ahead, micro_batches_per_step)
            first += count

    def between_drains(self, micro_batches_per_step: int, total_micro_batches: int) -> list[int]:
        """Return how many micro-batches run between one empty pipeline and the next, in order."""
        together = micro_batches_per_step if self.flushes else max(1, total_micro_batches)
        whole, rest = divmod(total_micro_batches, together)
        return [together] * whole + [rest] * (rest > 0)

    def version_delay(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        lead: int = 1,
        *,
        replicas: int = 1,
    ) -> int:
        """Return by how many micro-batches forwards are ahead of updates, d.

        0 where a flush evens versions out, else what forwards are ahead of backwards, and one more
        where an average over `replicas` is taken during a forward.
        """
        if self.flushes:
            return 0
        ahead = self.ahead(stage, stages, micro_batches_per_step, lead)
        return ahead + 1 if replicas > 1 else ahead

    def version(
        self,
        micro_batch: int,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        lead: int = 1,
        *,
        replicas: int = 1,
    ) -> int:
        """Return the version of the weights that a forward sees: the updates before it.

        floor(max(n - d, 0) / M) for micro-batch n; its backward sees version floor(n / M) at every
        stage of every schedule.
        """
        delay = self.version_delay(stage, stages, micro_batches_per_step, lead, replicas=replicas)
        return max(micro_batch - delay, 0) // micro_batches_per_step

    def lagged(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        lead: int = 1,
        *,
        replicas: int = 1,
    ) -> int:
        """Return how many of a step's M micro-batches have an update between their two passes.

        That is in steady state. These are what weight policy `replay` runs forward again.
        """
        delay = self.version_delay(stage, stages, micro_batches_per_step, lead, replicas=replicas)
        return min(delay, micro_batches_per_step)

    def mean_lag(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        lead: int = 1,
        *,
        replicas: int = 1,
    ) -> Fraction:
        """Return by how many updates weights lag at `stage` on average over a step, exactly.

        d / M in steady state: a micro-batch lags by the whole number below it or above it. The
        largest lag is `older_versions`.
        """
        delay = self.version_delay(stage, stages, micro_batches_per_step, lead, replicas=replicas)
        return Fraction(delay, micro_batches_per_step)

    def older_versions(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        lead: int = 1,
        *,
        replicas: int = 1,
    ) -> int:
        """Return how many versions before the current one micro-batches in flight have seen.

        These are what weight policy `stash` keeps.
        """
        delay = self.version_delay(stage, stages, micro_batches_per_step, lead, replicas=replicas)
        return ceil(delay / micro_batches_per_step)

    @property
    def own_options(self) -> tuple[str, ...]:
        """The names among `lead` and `weights` that mean something under this schedule."""
        lead = (LEAD,) if self.takes_lead else ()
        return lead if self.flushes else (*lead, WEIGHTS)

    def check_options(self, **given: object) -> None:
        """Check that no option is given that asks for what this schedule does not do.

        A lead of 1 and policy `live` ask for nothing: they are what a schedule does that takes no
        lead and where no weights lag.

        Args:
            given: `lead` and `weights`; None stands for one that is not given.

        Raises:
            InputError: if there is one.
        """
        for name, value in given.items():
            if value not in {None, _NOTHING[name]} and name not in self.own_options:
                raise InputError(
                    f"--{name} is {value}, but it means nothing under schedule {self.name!r}: "
                    f"leave --{name} out, or use another schedule."
                )

    def programme(
        self,
        device: int,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int = 1,
        *,
        replay: bool = False,
        replicas: int = 1,
        ties: Collection[tuple[int, int]] = (),
    ) -> Programme:
        """Return everything `device` executes, communication included.

        With `replay`, lagged micro-batches run forward again before their backward. With several
        `replicas` of every stage gradients are averaged over them; micro-batches are counted on one
        replica. `ties` are the pairs (owner, copy) of devices that hold tied weights.

        Raises:
            ValueError: if an argument is out of range.
            InputError: if so many stages cannot be placed.
        """
        placement = self.placement(stages)
        check_arguments(
            device, placement.devices, micro_batches_per_step, total_micro_batches, lead
        )
        planned = self.compute(device, stages, micro_batches_per_step, total_micro_batches, lead)
        if replicas > 1:
            planned = with_replicas(planned, flushes=self.flushes)
        if ties:
            delays = (
                self.version_delay(owner, stages, micro_batches_per_step, lead, replicas=replicas)
                for owner, _ in ties
            )
            tied = [TiedDevices(*tie, delay) for tie, delay in zip(ties, delays, strict=True)]
            planned = with_tied_weights(planned, device, tied, micro_batches_per_step)
        if replay:
            planned = with_replays(planned)
        return list(with_communication(planned, device, placement))

    def programmes(
        self,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int = 1,
        *,
        replay: bool = False,
        replicas: int = 1,
        ties: Collection[tuple[int, int]] = (),
    ) -> list[Programme]:
        """Return the programmes of all devices, in order.

        Raises:
            ValueError: as `programme`.
            InputError: as `programme`.
        """
        return [
            self.programme(
                device,
                stages,
                micro_batches_per_step,
                total_micro_batches,
                lead,
                replay=replay,
                replicas=replicas,
                ties=ties,
            )
            for device in range(self.placement(stages).devices)
        ]

    def in_flight_bounds(
        self, stages: int, micro_batches_per_step: int, lead: int = 1
    ) -> list[int]:
        """Return `in_flight` of every stage, in order."""
        return [
            self.in_flight(stage, stages, micro_batches_per_step, lead) for stage in range(stages)
        ]
