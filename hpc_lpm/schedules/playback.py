"""Play the programmes of all devices against each other on a clock.

Sends never block, receives block and are served in the order of sending: what an engine does.
The validator, the drawings and the simulator all look at the same playback.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
from hpc_lpm.schedules.placement import Placement


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
    """One instruction of one device with its times; waiting for a message is not counted."""

    instruction: Instruction
    start_seconds: float
    end_seconds: float


StageTimeline = list[TimedInstruction]
"""All that one device did, in order of execution."""


@dataclass(frozen=True)
class Playback:
    """The timeline of every device, first device first.

    `stopped[device]` is the index of the instruction at which a device waits for ever, or None.
    """

    timelines: list[StageTimeline]
    stopped: list[int | None]

    @property
    def makespan_seconds(self) -> float:
        """The time at which the last device has finished."""
        return max((line[-1].end_seconds for line in self.timelines if line), default=0.0)


@dataclass
class _Link:
    """What carries the messages from one device to another, one after the other."""

    free_at_seconds: float = 0.0

    def carry(self, now: float, duration: float) -> tuple[float, float]:
        """Return when a message that is sent now begins to travel, and when it is there."""
        start = max(now, self.free_at_seconds)
        self.free_at_seconds = start + duration
        return start, self.free_at_seconds


@dataclass(frozen=True)
class _Boundary:
    """The messages between two stages in one direction, each with its times on the link."""

    sender: int
    receiver: int
    number: int
    messages: deque[tuple[int, float, float]] = field(default_factory=deque)


class _Player:
    def __init__(self, programmes: Sequence[Programme], clock: Clock, placement: Placement) -> None:
        devices = len(programmes)
        self.programmes = programmes
        self.clock = clock
        self.placement = placement
        self.positions = [0] * devices
        self.now = [0.0] * devices
        self.averaged_at = [0.0] * devices
        self.timelines: list[StageTimeline] = [[] for _ in programmes]
        holder = [placement.device(stage) for stage in range(placement.stages)]
        pairs = list(enumerate(pairwise(holder)))
        self.down = [_Boundary(above, below, number) for number, (above, below) in pairs]
        self.up = [_Boundary(below, above, number) for number, (above, below) in pairs]
        self.links: defaultdict[tuple[int, int], _Link] = defaultdict(_Link)
        self.tied: defaultdict[tuple[type, int, int], deque[float]] = defaultdict(deque)
        self.partners = [
            {i.stage for i in programme if isinstance(i, TiedMessage)} for programme in programmes
        ]
        for boundary in self.down:
            self.partners[boundary.sender].add(boundary.receiver)
            self.partners[boundary.receiver].add(boundary.sender)

    def play(self) -> Playback:
        waiting = deque(range(len(self.programmes)))
        while waiting:
            device = waiting.popleft()
            before = self.positions[device]
            while self._advance(device):
                pass
            if self.positions[device] != before:
                waiting.extend(
                    other for other in sorted(self.partners[device]) if other not in waiting
                )
        return Playback(
            self.timelines,
            [
                position if position < len(programme) else None
                for position, programme in zip(self.positions, self.programmes, strict=True)
            ],
        )

    def _advance(self, device: int) -> bool:
        """Execute the next instruction of `device`; return False if it waits or there is none."""
        position = self.positions[device]
        if position == len(self.programmes[device]):
            return False
        instruction = self.programmes[device][position]
        now = self.now[device]
        match instruction:
            case SendActivation(_, chunk):
                timed = self._send(self.down, self.placement.stage(device, chunk), instruction)
            case SendGradient(_, chunk):
                timed = self._send(self.up, self.placement.stage(device, chunk) - 1, instruction)
            case ReceiveActivation(_, chunk):
                timed = self._receive(
                    self.down, self.placement.stage(device, chunk) - 1, instruction
                )
            case ReceiveGradient(_, chunk):
                timed = self._receive(self.up, self.placement.stage(device, chunk), instruction)
            case SendTiedGradient() | SendTiedWeights():
                timed = self._send_tied(device, instruction)
            case ReceiveTiedGradient() | ReceiveTiedWeights():
                timed = self._receive_tied(device, instruction)
            case Reduce():
                held = self.placement.held[device]
                averaging = sum(self.clock.all_reduce_seconds(stage) for stage in held)
                self.averaged_at[device] = now + averaging
                timed = TimedInstruction(instruction, now, now)
            case Update():
                now = max(now, self.averaged_at[device])
                duration = self.clock.compute_seconds(self.placement.stage(device), instruction)
                timed = TimedInstruction(instruction, now, now + duration)
            case _:
                stage = self.placement.stage(device, instruction.chunk)
                duration = self.clock.compute_seconds(stage, instruction)
                timed = TimedInstruction(instruction, now, now + duration)
        if timed is None:
            return False
        self.timelines[device].append(timed)
        self.now[device] = timed.end_seconds
        self.positions[device] += 1
        return True

    def _send(
        self,
        boundaries: list[_Boundary],
        number: int,
        instruction: SendActivation | SendGradient,
    ) -> TimedInstruction | None:
        if not 0 <= number < len(boundaries):
            return None
        boundary = boundaries[number]
        now, duration = self.now[boundary.sender], self._transfer_seconds(boundary)
        times = self.links[boundary.sender, boundary.receiver].carry(now, duration)
        boundary.messages.append((instruction.micro_batch, *times))
        # Without overlap the sender's processor is what moves the bytes.
        return TimedInstruction(instruction, now, now if self.clock.overlap else now + duration)

    def _receive(
        self,
        boundaries: list[_Boundary],
        number: int,
        instruction: ReceiveActivation | ReceiveGradient,
    ) -> TimedInstruction | None:
        if not 0 <= number < len(boundaries):
            return None
        boundary = boundaries[number]
        if not boundary.messages or boundary.messages[0][0] != instruction.micro_batch:
            return None
        _, start, end = boundary.messages.popleft()
        now = self.now[boundary.receiver]
        if self.clock.overlap:
            arrival = max(now, end)
            return TimedInstruction(instruction, arrival, arrival)
        begin = max(now, start)
        return TimedInstruction(instruction, begin, begin + self._transfer_seconds(boundary))

    def _transfer_seconds(self, boundary: _Boundary) -> float:
        """Return how long a message travels: within a device it is there at once."""
        if boundary.sender == boundary.receiver:
            return 0.0
        return self.clock.transfer_seconds(boundary.number)

    def _send_tied(
        self, device: int, message: SendTiedGradient | SendTiedWeights
    ) -> TimedInstruction:
        # Sent once per step and off the path of the micro-batches, so it is taken to cost nothing.
        self.tied[type(message), device, message.stage].append(self.now[device])
        return TimedInstruction(message, self.now[device], self.now[device])

    def _receive_tied(
        self, device: int, message: ReceiveTiedGradient | ReceiveTiedWeights
    ) -> TimedInstruction | None:
        gradient = isinstance(message, ReceiveTiedGradient)
        kind = SendTiedGradient if gradient else SendTiedWeights
        sent = self.tied[kind, message.stage, device]
        if not sent:
            return None
        arrival = max(self.now[device], sent.popleft())
        return TimedInstruction(message, arrival, arrival)


def play(
    programmes: Sequence[Programme], clock: Clock, placement: Placement | None = None
) -> Playback:
    """Play the programmes of all devices, first device first, until no device can go on.

    A link carries one message at a time from one device to another. With `clock.overlap` a message
    costs neither device time; without, the sender is busy while it leaves, the receiver while it
    arrives. Without a `placement` every device holds one stage.
    """
    return _Player(programmes, clock, placement or Placement.in_a_loop(len(programmes))).play()
