"""Prove that the programmes of all stages fit together before any of them is executed."""

from collections.abc import Sequence
from itertools import product

from hpc_lpm.errors import InputError
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.drawing import draw
from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    Reduce,
    Replay,
    SendActivation,
    SendGradient,
    TiedMessage,
    Update,
)
from hpc_lpm.schedules.ordering import forwards_ahead
from hpc_lpm.schedules.playback import UnitClock, play


class ScheduleError(Exception):
    """Programmes do not fit together; the message holds their picture with the bad step marked."""


class _FaultError(Exception):
    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


def validate(
    programmes: Sequence[Programme],
    micro_batches_per_step: int,
    total_micro_batches: int,
    in_flight_bounds: Sequence[int],
) -> None:
    """Prove that programmes (communication included, first stage first) are sound.

    Shown for every stage: each micro-batch passes forward and backward exactly once, with its data
    there; never more than `in_flight_bounds[stage]` are in flight; update u comes after the
    backwards of all micro-batches below (u + 1) * `micro_batches_per_step` and before any other
    (the last step may have fewer); if any step is reduced every one is, after these backwards and
    before its update.
    Shown for all together, with sends that do not block and receives that take messages in the
    order of sending: no stage waits for ever and no message is left over. As every order is fixed,
    what holds in this one playback holds for any timing.

    Raises:
        ScheduleError: at the first fault found.
    """
    stages = len(programmes)
    replicated = any(isinstance(item, Reduce) for programme in programmes for item in programme)
    for stage, programme in enumerate(programmes):
        checker = _StageChecker(
            stage,
            stages,
            micro_batches_per_step,
            total_micro_batches,
            in_flight_bounds[stage],
            replicated=replicated,
        )
        try:
            for index, instruction in enumerate(programme):
                checker.check(index, instruction)
            checker.finish(len(programme))
        except _FaultError as fault:
            raise _error(programmes, stage, fault.index, fault.reason) from None
    _check_progress(programmes)


def check_schedule(schedule: Schedule) -> None:
    """Prove on small pipelines that a schedule is sound and what it says of itself holds.

    Tried are up to four stages and four micro-batches per step, with and without replicas, each for
    some steps of which the last is shorter where that can be.

    Raises:
        InputError: at the first fault found; the message holds the picture of the programmes.
    """
    for stages, per_step, lead, replicas in product((1, 2, 4), (1, 2, 4), (1, 2), (1, 2)):
        total = 4 * per_step + per_step // 2
        where = (
            f"schedule {schedule.name!r} with {stages} stages, {per_step} micro-batches per step, "
            f"lead {lead} and {replicas} replicas"
        )
        programmes = schedule.programmes(stages, per_step, total, lead, replicas=replicas)
        bounds = schedule.in_flight_bounds(stages, per_step, lead)
        try:
            validate(programmes, per_step, total, bounds)
        except ScheduleError as error:
            raise InputError(f"{where} is unsound at {error}") from None
        for stage, programme in enumerate(programmes):
            place = (stage, stages, per_step)
            for micro_batch, seen in _versions_seen(programme).items():
                said = schedule.version(micro_batch, *place, lead, replicas=replicas)
                if seen != said:
                    raise InputError(
                        f"{where}: the forward of micro-batch {micro_batch} at stage {stage} comes "
                        f"after {seen} updates, but `version` says {said}: mend one of the two.\n"
                        f"{draw(programmes)}"
                    )
            reason = _fault_of_order(schedule, place, lead, total)
            if reason is not None:
                raise InputError(f"{where}: stage {stage} {reason}\n{draw(programmes)}")


def _fault_of_order(
    schedule: Schedule, place: tuple[int, int, int], lead: int, total: int
) -> str | None:
    """Return what is wrong with the order of computation at a stage, None if nothing is."""
    _, _, per_step = place
    ahead = schedule.ahead(*place, lead)
    computed = list(schedule.compute(*place, total, lead))
    if schedule.alternates and computed != list(forwards_ahead(0, total, ahead, per_step)):
        return (
            f"does not alternate between forward n + {ahead} and backward n, but `alternates` says "
            "so: set it to False."
        )
    for steps in range(1, 4):
        first_left_out = Forward(steps * per_step)
        begun = computed[: computed.index(first_left_out)]
        if list(schedule.compute(*place, steps * per_step, lead))[: len(begun)] != begun:
            return (
                f"begins {steps} steps in another order than more steps, so that a run could not "
                "be stopped early: let the order depend on the end only after the last forward."
            )
    return None


def _versions_seen(programme: Programme) -> dict[int, int]:
    """Return by micro-batch how many updates come before its forward."""
    updates = 0
    seen = {}
    for instruction in programme:
        match instruction:
            case Forward(micro_batch):
                seen[micro_batch] = updates
            case Update():
                updates += 1
    return seen


def _check_progress(programmes: Sequence[Programme]) -> None:
    playback = play(programmes, UnitClock())
    waiting = [(stage, index) for stage, index in enumerate(playback.stopped) if index is not None]
    if waiting:
        stage, index = waiting[0]
        reason = f"deadlock: {programmes[stage][index]} waits for ever"
        others = [f"stage {other} at {programmes[other][at]}" for other, at in waiting[1:]]
        if others:
            reason += f" (so do {', '.join(others)})"
        raise _error(programmes, stage, index, reason)


def _error(programmes: Sequence[Programme], stage: int, index: int, reason: str) -> ScheduleError:
    programme = programmes[stage]
    step = str(programme[index]) if index < len(programme) else "end"
    picture = draw(programmes, marks={(stage, index): f" <-[{step}]"})
    return ScheduleError(f"stage {stage}, instruction {index} ({step}): {reason}\n{picture}")


class _StageChecker:
    """Follow one stage's programme, and what the stage holds at every point of it."""

    def __init__(
        self,
        stage: int,
        stages: int,
        micro_batches_per_step: int,
        total_micro_batches: int,
        in_flight_bound: int,
        *,
        replicated: bool,
    ) -> None:
        self.has_previous = stage > 0
        self.has_next = stage < stages - 1
        self.micro_batches_per_step = micro_batches_per_step
        self.total_micro_batches = total_micro_batches
        self.in_flight_bound = in_flight_bound
        self.replicated = replicated
        self.done: set[Instruction] = set()
        self.forwards = 0
        self.backwards = 0
        self.updates = 0

    def check(self, index: int, instruction: Instruction) -> None:
        if instruction in self.done:
            raise _FaultError(index, f"{instruction} comes twice")
        if not isinstance(instruction, Reduce | Update | TiedMessage) and not (
            0 <= instruction.micro_batch < self.total_micro_batches
        ):
            raise _FaultError(index, f"there are {self.total_micro_batches} micro-batches")
        self._check_data(index, instruction)
        match instruction:
            case Forward():
                self._check_in_flight(index)
            case Replay(micro_batch) if Backward(micro_batch) in self.done:
                raise _FaultError(index, f"{instruction} comes after its backward")
            case Backward(micro_batch):
                self._check_version(index, micro_batch)
            case Reduce(step):
                self._check_step(index, step)
            case Update(step):
                self._check_step(index, step)
                self.updates += 1
        self.done.add(instruction)

    def finish(self, length: int) -> None:
        for micro_batch in range(self.total_micro_batches):
            expected: list[Instruction] = [Forward(micro_batch), Backward(micro_batch)]
            if self.has_next:
                expected += [SendActivation(micro_batch)]
            if self.has_previous:
                expected += [SendGradient(micro_batch)]
            for instruction in expected:
                if instruction not in self.done:
                    raise _FaultError(length, f"{instruction} is missing")
        if self.updates * self.micro_batches_per_step < self.total_micro_batches:
            raise _FaultError(length, f"U{self.updates} is missing")

    def _check_data(self, index: int, instruction: Instruction) -> None:
        needed: Instruction | None = None
        match instruction:
            case Forward(n) if self.has_previous:
                needed = ReceiveActivation(n)
            case SendActivation(n):
                needed = Forward(n)
            case ReceiveGradient(n):
                needed = Forward(n)
            case SendGradient(n):
                needed = Backward(n)
            case Replay(n):
                needed = Forward(n)
            case Backward(n):
                needed = ReceiveGradient(n) if self.has_next else Forward(n)
            case Update(step) if self.replicated:
                needed = Reduce(step)
        if needed is not None and needed not in self.done:
            raise _FaultError(index, f"{instruction} comes before {needed}")

    def _check_in_flight(self, index: int) -> None:
        self.forwards += 1
        in_flight = self.forwards - self.backwards
        if in_flight > self.in_flight_bound:
            raise _FaultError(
                index, f"{in_flight} micro-batches in flight, allowed are {self.in_flight_bound}"
            )

    def _check_version(self, index: int, micro_batch: int) -> None:
        self.backwards += 1
        expected = micro_batch // self.micro_batches_per_step
        if expected != self.updates:
            raise _FaultError(
                index, f"the backward belongs after {expected} updates, {self.updates} are done"
            )

    def _check_step(self, index: int, step: int) -> None:
        if step != self.updates:
            raise _FaultError(index, f"update {self.updates} is due")
        due = min((step + 1) * self.micro_batches_per_step, self.total_micro_batches)
        missing = due - self.backwards
        if missing:
            raise _FaultError(index, f"{missing} backwards of the step are still to come")
