"""The schedules by name. A new one is a file beside this one and a line in `SCHEDULES`."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from hpc_lpm.errors import look_up
from hpc_lpm.schedules.fbp import fbp, fbp_ahead
from hpc_lpm.schedules.gpipe import gpipe, gpipe_ahead
from hpc_lpm.schedules.insertions import (
    TiedStages,
    with_communication,
    with_replays,
    with_replicas,
    with_tied_weights,
)
from hpc_lpm.schedules.instructions import Instruction, Programme
from hpc_lpm.schedules.naive import naive, naive_ahead
from hpc_lpm.schedules.one_f_one_b import one_f_one_b, one_f_one_b_ahead


class ComputeProgramme(Protocol):
    """A generator of the computation of one stage."""

    def __call__(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int = 1,
    ) -> Iterator[Instruction]:
        """Yield forwards, backwards and updates of `stage` in order."""
        ...


class ForwardsAhead(Protocol):
    """By how many micro-batches forwards are ahead of backwards."""

    def __call__(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return the number for `stage`; one more micro-batch can be in flight there."""
        ...


@dataclass(frozen=True)
class Schedule:
    """A schedule and what is known about it.

    `flushes` tells if the pipeline is empty at every update, so that no weight version lags.
    """

    name: str
    description: str
    compute: ComputeProgramme
    forwards_ahead: ForwardsAhead
    flushes: bool

    def programme(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int = 1,
        *,
        replay: bool = False,
        replicas: int = 1,
        ties: Collection[tuple[int, int]] = (),
    ) -> Programme:
        """Return everything `stage` executes, communication included.

        With `replay`, lagged micro-batches run forward again before their backward. With several
        `replicas` of every stage gradients are averaged over them; micro-batches are those of one.
        `ties` are the pairs (owner, copy) of stages that hold tied weights.

        Raises:
            ValueError: if an argument is out of range.
        """
        planned = self.compute(stage, stages, micro_batches_per_step, total_micro_batches, lead)
        if replicas > 1:
            planned = with_replicas(planned, flushes=self.flushes)
        if ties:
            delays = (
                self.version_delay(owner, stages, micro_batches_per_step, lead, replicas=replicas)
                for owner, _ in ties
            )
            tied = [TiedStages(*tie, delay) for tie, delay in zip(ties, delays, strict=True)]
            planned = with_tied_weights(planned, stage, tied, micro_batches_per_step)
        if replay:
            planned = with_replays(planned)
        return list(with_communication(planned, stage, stages))

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
        """Return `programme` of every stage, in order.

        Raises:
            ValueError: as `programme`.
        """
        return [
            self.programme(
                stage,
                stages,
                micro_batches_per_step,
                total_micro_batches,
                lead,
                replay=replay,
                replicas=replicas,
                ties=ties,
            )
            for stage in range(stages)
        ]

    def version_delay(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        lead: int = 1,
        *,
        replicas: int = 1,
    ) -> int:
        """Return by how many micro-batches forwards are ahead of updates.

        0 where a flush evens versions out, else d, and one more where an average over `replicas`
        is taken during a forward.
        """
        if self.flushes:
            return 0
        ahead = self.forwards_ahead(stage, stages, micro_batches_per_step, lead)
        return ahead + 1 if replicas > 1 else ahead

    def in_flight_bounds(
        self, stages: int, micro_batches_per_step: int, lead: int = 1
    ) -> list[int]:
        """Return for every stage how many micro-batches are in flight at most.

        Replicas of the stages change nothing: an update comes later, but no forward earlier.
        """
        return [
            self.forwards_ahead(stage, stages, micro_batches_per_step, lead) + 1
            for stage in range(stages)
        ]


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule("fbp", "forward-backward parallel, no flush", fbp, fbp_ahead, flushes=False),
        Schedule("1f1b", "1F1B with a flush a step", one_f_one_b, one_f_one_b_ahead, flushes=True),
        Schedule("gpipe", "all forwards, then all backwards", gpipe, gpipe_ahead, flushes=True),
        Schedule("naive", "one micro-batch at a time", naive, naive_ahead, flushes=True),
    )
}


def schedule_named(name: str) -> Schedule:
    """Return a schedule by its name.

    Raises:
        InputError: if there is none of that name.
    """
    return look_up("schedule", name, SCHEDULES)
