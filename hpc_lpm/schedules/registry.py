"""The schedules by name. A new one is a file beside this one and a line in `SCHEDULES`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hpc_lpm.errors import look_up
from hpc_lpm.schedules.communication import with_communication
from hpc_lpm.schedules.fbp import fbp, fbp_ahead
from hpc_lpm.schedules.gpipe import gpipe, gpipe_ahead
from hpc_lpm.schedules.instructions import Instruction, Programme
from hpc_lpm.schedules.naive import naive, naive_ahead
from hpc_lpm.schedules.one_f_one_b import one_f_one_b, one_f_one_b_ahead
from hpc_lpm.schedules.replays import with_replays


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
    ) -> Programme:
        """Return everything `stage` executes, communication included.

        With `replay`, lagged micro-batches run forward again before their backward.

        Raises:
            ValueError: if an argument is out of range or steps are not whole.
        """
        compute = self.compute(stage, stages, micro_batches_per_step, total_micro_batches, lead)
        return list(with_communication(with_replays(compute) if replay else compute, stage, stages))

    def programmes(
        self,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        lead: int = 1,
        *,
        replay: bool = False,
    ) -> list[Programme]:
        """Return `programme` of every stage, in order.

        Raises:
            ValueError: as `programme`.
        """
        return [
            self.programme(
                stage, stages, micro_batches_per_step, total_micro_batches, lead, replay=replay
            )
            for stage in range(stages)
        ]

    def version_delay(
        self, stage: int, stages: int, micro_batches_per_step: int, lead: int = 1
    ) -> int:
        """Return d, by which forwards are ahead of updates: 0 where a flush evens versions out."""
        if self.flushes:
            return 0
        return self.forwards_ahead(stage, stages, micro_batches_per_step, lead)

    def in_flight_bounds(
        self, stages: int, micro_batches_per_step: int, lead: int = 1
    ) -> list[int]:
        """Return for every stage how many micro-batches are in flight at most."""
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
