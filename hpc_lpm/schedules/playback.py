"""Play the programmes of all stages against each other on a clock.

Sends never block, receives block and are served in the order of sending: what an engine does.
The validator, the drawings and the simulator all look at the same playback.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpc_lpm.schedules.instructions import (
    Computation,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
    Reduce,
    SendActivation,
    SendGradient,
    SendTiedGradient,
    SendTiedWeights,
    TiedMessage,
    Update,
)


class Clock(Protocol):
    """The durations of everything that is played, in seconds."""

    @property
    def overlap(self) -> bool:
        """Whether stages compute while their messages travel."""
        ...

    def compute_seconds(self, stage: int, instruction: Computation) -> float:
        """Return how long `stage` computes for `instruction`."""
        ...

    def transfer_seconds(self, boundary: int) -> float:
        """Return how long a message takes between stages `boundary` and `boundary + 1`."""
        ...

    def all_reduce_seconds(self, stage: int) -> float:
        """Return how long replicas of `stage` average their gradients, computing meanwhile."""
        ...


class UnitClock:
    """The clock of drawings: a pass takes one slot; updates, averages and messages take none."""

    overlap = True

    def compute_seconds(self, stage: int, instruction: Computation) -> float:
        """Return 1 for a pass, 0 for an update."""
        return 0.0 if isinstance(instruction, Update) else 1.0

    def transfer_seconds(self, boundary: int) -> float:
        """Return 0."""
        return 0.0

    def all_reduce_seconds(self, stage: int) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True, slots=True)
class TimedInstruction:
    """One instruction of one stage with its times; waiting for a message is not counted."""

    instruction: Instruction
    start_seconds: float
    end_seconds: float


StageTimeline = list[TimedInstruction]
"""All that one stage did, in order of execution."""


@dataclass(frozen=True)
class Playback:
    """The timeline of every stage, first stage first.

    `stopped[stage]` is the index of the instruction at which a stage waits for ever, or None.
    """

    timelines: list[StageTimeline]
    stopped: list[int | None]

    @property
    def makespan_seconds(self) -> float:
        """The time at which the last stage has finished."""
        return max((line[-1].end_seconds for line in self.timelines if line), default=0.0)


@dataclass
class _Channel:
    """The messages that cross one boundary in one direction, one after the other."""

    messages: deque[tuple[int, float, float]] = field(default_factory=deque)
    free_at_seconds: float = 0.0

    def send(self, micro_batch: int, now: float, duration: float) -> None:
        start = max(now, self.free_at_seconds)
        self.free_at_seconds = start + duration
        self.messages.append((micro_batch, start, self.free_at_seconds))


class _Player:
    def __init__(self, programmes: Sequence[Programme], clock: Clock) -> None:
        stages = len(programmes)
        self.programmes = programmes
        self.clock = clock
        self.positions = [0] * stages
        self.now = [0.0] * stages
        self.averaged_at = [0.0] * stages
        self.timelines: list[StageTimeline] = [[] for _ in programmes]
        self.down = [_Channel() for _ in range(stages - 1)]
        self.up = [_Channel() for _ in range(stages - 1)]
        self.tied: defaultdict[tuple[type, int, int], deque[float]] = defaultdict(deque)
        self.partners = [
            {stage - 1, stage + 1} | {i.stage for i in programme if isinstance(i, TiedMessage)}
            for stage, programme in enumerate(programmes)
        ]

    def play(self) -> Playback:
        waiting = deque(range(len(self.programmes)))
        while waiting:
            stage = waiting.popleft()
            before = self.positions[stage]
            while self._advance(stage):
                pass
            if self.positions[stage] != before:
                waiting.extend(
                    other
                    for other in sorted(self.partners[stage])
                    if 0 <= other < len(self.programmes) and other not in waiting
                )
        return Playback(
            self.timelines,
            [
                position if position < len(programme) else None
                for position, programme in zip(self.positions, self.programmes, strict=True)
            ],
        )

    def _advance(self, stage: int) -> bool:
        """Execute the next instruction of `stage`; return False if it waits or there is none."""
        position = self.positions[stage]
        if position == len(self.programmes[stage]):
            return False
        instruction = self.programmes[stage][position]
        match instruction:
            case SendActivation(micro_batch):
                timed = self._send(stage, stage, self.down, micro_batch, instruction)
            case SendGradient(micro_batch):
                timed = self._send(stage, stage - 1, self.up, micro_batch, instruction)
            case ReceiveActivation(micro_batch):
                timed = self._receive(stage, stage - 1, self.down, micro_batch, instruction)
            case ReceiveGradient(micro_batch):
                timed = self._receive(stage, stage, self.up, micro_batch, instruction)
            case SendTiedGradient() | SendTiedWeights():
                timed = self._send_tied(stage, instruction)
            case ReceiveTiedGradient() | ReceiveTiedWeights():
                timed = self._receive_tied(stage, instruction)
            case Reduce():
                now = self.now[stage]
                self.averaged_at[stage] = now + self.clock.all_reduce_seconds(stage)
                timed = TimedInstruction(instruction, now, now)
            case Update():
                now = max(self.now[stage], self.averaged_at[stage])
                duration = self.clock.compute_seconds(stage, instruction)
                timed = TimedInstruction(instruction, now, now + duration)
            case _:
                now = self.now[stage]
                duration = self.clock.compute_seconds(stage, instruction)
                timed = TimedInstruction(instruction, now, now + duration)
        if timed is None:
            return False
        self.timelines[stage].append(timed)
        self.now[stage] = timed.end_seconds
        self.positions[stage] += 1
        return True

    def _send(
        self,
        stage: int,
        boundary: int,
        channels: list[_Channel],
        micro_batch: int,
        instruction: Instruction,
    ) -> TimedInstruction | None:
        if not 0 <= boundary < len(channels):
            return None
        now = self.now[stage]
        duration = self.clock.transfer_seconds(boundary)
        channels[boundary].send(micro_batch, now, duration)
        # Without overlap the sender's processor is what moves the bytes.
        return TimedInstruction(instruction, now, now if self.clock.overlap else now + duration)

    def _receive(
        self,
        stage: int,
        boundary: int,
        channels: list[_Channel],
        micro_batch: int,
        instruction: Instruction,
    ) -> TimedInstruction | None:
        if not 0 <= boundary < len(channels):
            return None
        messages = channels[boundary].messages
        if not messages or messages[0][0] != micro_batch:
            return None
        _, start, end = messages.popleft()
        if self.clock.overlap:
            arrival = max(self.now[stage], end)
            return TimedInstruction(instruction, arrival, arrival)
        begin = max(self.now[stage], start)
        return TimedInstruction(instruction, begin, begin + self.clock.transfer_seconds(boundary))

    def _send_tied(
        self, stage: int, message: SendTiedGradient | SendTiedWeights
    ) -> TimedInstruction:
        # Sent once per step and off the path of the micro-batches, so it is taken to cost nothing.
        self.tied[type(message), stage, message.stage].append(self.now[stage])
        return TimedInstruction(message, self.now[stage], self.now[stage])

    def _receive_tied(
        self, stage: int, message: ReceiveTiedGradient | ReceiveTiedWeights
    ) -> TimedInstruction | None:
        gradient = isinstance(message, ReceiveTiedGradient)
        kind = SendTiedGradient if gradient else SendTiedWeights
        sent = self.tied[kind, message.stage, stage]
        if not sent:
            return None
        arrival = max(self.now[stage], sent.popleft())
        return TimedInstruction(message, arrival, arrival)


def play(programmes: Sequence[Programme], clock: Clock) -> Playback:
    """Play the programmes of all stages, first stage first, until no stage can go on.

    A link carries one message at a time in each direction. With `clock.overlap` a message costs
    neither stage time; without, the sender is busy while it leaves, the receiver while it arrives.
    """
    return _Player(programmes, clock).play()
