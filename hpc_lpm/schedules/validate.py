"""Prove that the programmes of all stages fit together before any of them is executed."""

from collections.abc import Iterator, Sequence
from itertools import product, takewhile

from hpc_lpm.errors import InputError, PicturedError
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.drawing import draw
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
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
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.playback import UnitClock, play


class ScheduleError(PicturedError):
    """Programmes do not fit together; the message holds their picture with the bad step marked.

    Attributes:
        device: whose programme is at fault.
        index: of the bad step in it, its length where something is missing at its end.
    """

    def __init__(self, sentence: str, picture: str, device: int, index: int) -> None:
        super().__init__(sentence, picture)
        self.device = device
        self.index = index


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
    placement: Placement | None = None,
) -> None:
    """Prove that programmes (communication included, first device first) are sound.

    Shown for every device: each micro-batch passes each of its stages forward and backward exactly
    once, whole or in two halves, with its data there, and adds up gradients in ascending order, as
    sequential training does; never more than `in_flight_bounds[stage]` are in flight at a stage;
    update u comes after the backwards of all micro-batches below (u + 1) * `micro_batches_per_step`
    and before any other (the last step may have fewer); if any step is reduced every one is, after
    these backwards and before its update.
    Shown for all together, with sends that do not block and receives that take messages in the
    order of sending: no device waits for ever and no message is left over. As every order is fixed,
    what holds in this one playback holds for any timing.

    Without a `placement` every device holds one stage.

    Raises:
        ScheduleError: at the first fault found.
    """
    placement = placement or Placement.in_a_loop(len(programmes))
    replicated = any(isinstance(item, Reduce) for programme in programmes for item in programme)
    for device, programme in enumerate(programmes):
        checker = _DeviceChecker(
            [
                _ChunkChecker(chunk, stage, placement.stages, in_flight_bounds[stage])
                for chunk, stage in enumerate(placement.held[device])
            ],
            micro_batches_per_step,
            total_micro_batches,
            replicated=replicated,
        )
        try:
            for index, instruction in enumerate(programme):
                checker.check(index, instruction)
            checker.finish(len(programme))
        except _FaultError as fault:
            raise _error(programmes, placement, device, fault.index, fault.reason) from None
    _check_progress(programmes, placement)


def check_schedule(schedule: Schedule) -> None:
    """Prove on small pipelines that a schedule is sound and what it says of itself holds.

    Tried are up to four devices and eight micro-batches per step, with and without replicas, each
    for some steps of which the last is shorter where that can be.

    Raises:
        InputError: at the first fault found; the message holds the picture of the programmes.
    """
    for devices, per_step, lead, replicas in product((1, 2, 4), (1, 2, 4, 8), (1, 2), (1, 2)):
        stages = devices * schedule.chunks
        total = 4 * per_step + per_step // 2
        where = (
            f"schedule {schedule.name!r} with {stages} stages, {per_step} micro-batches per step, "
            f"lead {lead} and {replicas} replicas"
        )
        programmes = schedule.programmes(stages, per_step, total, lead, replicas=replicas)
        bounds = schedule.in_flight_bounds(stages, per_step, lead)
        placement = schedule.placement(stages)
        try:
            validate(programmes, per_step, total, bounds, placement)
        except ScheduleError as error:
            sentence = f"{where} is unsound at {error.sentence}"
            raise InputError(sentence, error.picture) from None
        for device, programme in enumerate(programmes):
            for (micro_batch, chunk), seen in _versions_seen(programme).items():
                stage = placement.stage(device, chunk)
                said = schedule.version(
                    micro_batch, stage, stages, per_step, lead, replicas=replicas
                )
                if seen != said:
                    raise InputError(
                        f"{where}: the forward of micro-batch {micro_batch} at stage {stage} comes "
                        f"after {seen} updates, but `version` says {said}: mend one of the two.",
                        draw(programmes, placement=placement),
                    )
            reason = _fault_of_order(schedule, (device, stages, per_step), lead, total)
            if reason is not None:
                picture = draw(programmes, placement=placement)
                name = _name_of_rows(placement)
                raise InputError(f"{where}: {name} {device} {reason}", picture)


def _fault_of_order(
    schedule: Schedule, place: tuple[int, int, int], lead: int, total: int
) -> str | None:
    """Return what is wrong with the order of computation on a device, None if nothing is."""
    _, _, per_step = place
    computed = list(schedule.compute(*place, total, lead))
    ahead = schedule.ahead(*place, lead)
    if schedule.alternates and computed != list(forwards_ahead(0, total, ahead, per_step)):
        return (
            f"does not alternate between forward n + {ahead} and backward n, but `alternates` says "
            "so: set it to False."
        )
    for steps in range(1, 4):
        begun = _before(steps * per_step, computed)
        if list(schedule.compute(*place, steps * per_step, lead))[: len(begun)] != begun:
            return (
                f"begins {steps} steps in another order than more steps, so that a run could not "
                "be stopped early: let the order depend on the end only after the last forward."
            )
    return None


def _before(micro_batch: int, computed: list[Instruction]) -> list[Instruction]:
    """Return what is computed before the first forward of this micro-batch or a later one."""

    def is_earlier(instruction: Instruction) -> bool:
        return not isinstance(instruction, Forward) or instruction.micro_batch < micro_batch

    return list(takewhile(is_earlier, computed))


def _versions_seen(programme: Programme) -> dict[tuple[int, int], int]:
    """Return by micro-batch and chunk how many updates come before the forward."""
    updates = 0
    seen = {}
    for instruction in programme:
        match instruction:
            case Forward(micro_batch, chunk):
                seen[micro_batch, chunk] = updates
            case Update():
                updates += 1
    return seen


def _check_progress(programmes: Sequence[Programme], placement: Placement) -> None:
    playback = play(programmes, UnitClock(), placement)
    waiting = [(each, index) for each, index in enumerate(playback.stopped) if index is not None]
    if waiting:
        device, index = waiting[0]
        reason = f"deadlock: {programmes[device][index]} waits for ever"
        name = _name_of_rows(placement)
        others = [f"{name} {other} at {programmes[other][at]}" for other, at in waiting[1:]]
        if others:
            reason += f" (so do {', '.join(others)})"
        raise _error(programmes, placement, device, index, reason)


def _name_of_rows(placement: Placement) -> str:
    return "stage" if placement.chunks == 1 else "device"


def _error(
    programmes: Sequence[Programme], placement: Placement, device: int, index: int, reason: str
) -> ScheduleError:
    programme = programmes[device]
    step = str(programme[index]) if index < len(programme) else "end"
    picture = draw(programmes, {(device, index): f" <-[{step}]"}, placement)
    where = f"{_name_of_rows(placement)} {device}, instruction {index} ({step})"
    return ScheduleError(f"{where}: {reason}", picture, device, index)


class _ChunkChecker:
    """Follow the passes of one stage, which is a chunk of its device."""

    def __init__(self, chunk: int, stage: int, stages: int, in_flight_bound: int) -> None:
        self.chunk = chunk
        self.has_previous = stage > 0
        self.has_next = stage < stages - 1
        self.in_flight_bound = in_flight_bound
        self.forwards = 0
        self.backwards = 0
        self.last_of_gradients: dict[type, int] = {}

    def begin(self, index: int) -> None:
        self.forwards += 1
        in_flight = self.forwards - self.backwards
        if in_flight > self.in_flight_bound:
            raise _FaultError(
                index, f"{in_flight} micro-batches in flight, allowed are {self.in_flight_bound}"
            )

    def add_gradients(self, index: int, instruction: Instruction, *halves: type) -> None:
        """Check that each half of the gradients is added up in ascending order."""
        assert isinstance(instruction, Backward | BackwardInput | BackwardWeights)
        for half in halves:
            before = self.last_of_gradients.get(half, -1)
            if instruction.micro_batch < before:
                raise _FaultError(
                    index,
                    f"{instruction} comes after that of micro-batch {before}, so that gradients "
                    "are added up in another order than in sequential training",
                )
            self.last_of_gradients[half] = instruction.micro_batch

    def expected(self, micro_batches: int) -> Iterator[Instruction]:
        for micro_batch in range(micro_batches):
            yield Forward(micro_batch, self.chunk)
            if self.has_next:
                yield SendActivation(micro_batch, self.chunk)
            if self.has_previous:
                yield SendGradient(micro_batch, self.chunk)


class _DeviceChecker:
    """Follow one device's programme, and what the device holds at every point of it."""

    def __init__(
        self,
        chunks: list[_ChunkChecker],
        micro_batches_per_step: int,
        total_micro_batches: int,
        *,
        replicated: bool,
    ) -> None:
        self.chunks = chunks
        self.micro_batches_per_step = micro_batches_per_step
        self.total_micro_batches = total_micro_batches
        self.replicated = replicated
        self.done: set[Instruction] = set()
        self.updates = 0
        self.repeated: _FaultError | None = None

    def check(self, index: int, instruction: Instruction) -> None:
        if instruction in self.done:
            twice = _FaultError(index, f"{instruction} comes twice")
            if not isinstance(instruction, ReceiveActivation | ReceiveGradient):
                raise twice
            # The pass that it is for comes twice too, which says more to whoever wrote the order.
            self.repeated = self.repeated or twice
            return
        self._check_once(index, instruction)
        if self.repeated is not None:
            raise self.repeated

    def _check_once(self, index: int, instruction: Instruction) -> None:
        self._check_numbers(index, instruction)
        self._check_data(index, instruction)
        match instruction:
            case Forward(_, chunk):
                self.chunks[chunk].begin(index)
            case Replay(micro_batch, chunk) if Backward(micro_batch, chunk) in self.done:
                raise _FaultError(index, f"{instruction} comes after its backward")
            case Backward(micro_batch, chunk):
                if BackwardInput(micro_batch, chunk) in self.done:
                    raise _FaultError(index, f"{instruction} comes after a half of it")
                self.chunks[chunk].add_gradients(index, instruction, BackwardInput, BackwardWeights)
                self._end(index, micro_batch, chunk)
            case BackwardInput(micro_batch, chunk):
                if Backward(micro_batch, chunk) in self.done:
                    raise _FaultError(index, f"{instruction} comes after the whole of it")
                self.chunks[chunk].add_gradients(index, instruction, BackwardInput)
            case BackwardWeights(micro_batch, chunk):
                self.chunks[chunk].add_gradients(index, instruction, BackwardWeights)
                self._end(index, micro_batch, chunk)
            case Reduce(step):
                self._check_step(index, step)
            case Update(step):
                self._check_step(index, step)
                self.updates += 1
        self.done.add(instruction)

    def _check_numbers(self, index: int, instruction: Instruction) -> None:
        if isinstance(instruction, Reduce | Update | TiedMessage):
            return
        if not 0 <= instruction.micro_batch < self.total_micro_batches:
            raise _FaultError(index, f"there are {self.total_micro_batches} micro-batches")
        if not 0 <= instruction.chunk < len(self.chunks):
            raise _FaultError(index, f"the device holds {len(self.chunks)} chunks")

    def finish(self, length: int) -> None:
        if self.repeated is not None:
            raise self.repeated
        for checker in self.chunks:
            for instruction in checker.expected(self.total_micro_batches):
                if instruction not in self.done:
                    raise _FaultError(length, f"{instruction} is missing")
            for micro_batch in range(self.total_micro_batches):
                whole = Backward(micro_batch, checker.chunk)
                half = BackwardWeights(micro_batch, checker.chunk)
                if whole not in self.done and half not in self.done:
                    begun = BackwardInput(micro_batch, checker.chunk) in self.done
                    raise _FaultError(length, f"{half if begun else whole} is missing")
        if self.updates * self.micro_batches_per_step < self.total_micro_batches:
            raise _FaultError(length, f"U{self.updates} is missing")

    def _check_data(self, index: int, instruction: Instruction) -> None:
        needed: tuple[Instruction, ...] = ()
        match instruction:
            case Forward(n, chunk) if self.chunks[chunk].has_previous:
                needed = (ReceiveActivation(n, chunk),)
            case SendActivation(n, chunk) | ReceiveGradient(n, chunk) | Replay(n, chunk):
                needed = (Forward(n, chunk),)
            case SendGradient(n, chunk):
                needed = (Backward(n, chunk), BackwardInput(n, chunk))
            case Backward(n, chunk) | BackwardInput(n, chunk):
                has_next = self.chunks[chunk].has_next
                needed = (ReceiveGradient(n, chunk) if has_next else Forward(n, chunk),)
            case BackwardWeights(n, chunk):
                needed = (BackwardInput(n, chunk),)
            case Update(step) if self.replicated:
                needed = (Reduce(step),)
        if needed and not self.done.intersection(needed):
            raise _FaultError(index, f"{instruction} comes before {needed[0]}")

    def _end(self, index: int, micro_batch: int, chunk: int) -> None:
        self.chunks[chunk].backwards += 1
        expected = micro_batch // self.micro_batches_per_step
        if expected != self.updates:
            raise _FaultError(
                index, f"the backward belongs after {expected} updates, {self.updates} are done"
            )

    def _check_step(self, index: int, step: int) -> None:
        if step != self.updates:
            raise _FaultError(index, f"update {self.updates} is due")
        due = min((step + 1) * self.micro_batches_per_step, self.total_micro_batches)
        missing = sum(due - checker.backwards for checker in self.chunks)
        if missing:
            raise _FaultError(index, f"{missing} backwards of the step are still to come")
