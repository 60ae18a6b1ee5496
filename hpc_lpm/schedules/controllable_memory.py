"""V-Half and V-Min: two chunks in a V, for a half and a third of the memory of 1F1B."""

import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache

from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.instructions import BackwardInput, BackwardWeights, Forward, Pass

Block = tuple[int, int, int, int]
"""When a device runs micro-batch 0: forward of chunk 0 and 1, gradient of input of chunk 1 and 0.

The building block of a schedule. Every further micro-batch follows `PERIOD` slots later, so that
four of these slots are taken and two are left for gradients of weights.
"""

PERIOD = 6


class _ControllableMemory(ChunkedSchedule):
    """A schedule in a V that repeats a building block within a limit of memory."""

    chunks = 2
    splits_backward = True
    folded = True

    @abstractmethod
    def block(self, device: int, devices: int) -> Block:
        """Return the building block of `device`."""

    @abstractmethod
    def most_in_flight(self, devices: int) -> int:
        """Return how many micro-batches the two chunks of a device hold together at most."""

    def order(self, device: int, devices: int, micro_batches: int) -> Iterable[Pass]:
        """Return the passes of `device` as `squeezed` from the building blocks."""
        blocks = tuple(self.block(each, devices) for each in range(devices))
        return squeezed(blocks, self.most_in_flight(devices), micro_batches)[device]


class VHalf(_ControllableMemory):
    """V-Half (Qi et al. 2024, "Pipeline parallelism with controllable memory", section 3).

    Gradients return so soon that a device holds about half as much as the first one under 1F1B;
    the bubble is about half as long. Two devices, three micro-batches per step, u = optimizer step:

        device 0  F0 .  .    F0.1 F1 I0.1 W0.1 F1.1 F2 I0   I1.1 W0   W1.1 I1 W1   F2.1 I2.1 ...
        device 1  .  F0 F0.1 .    .  F1   F1.1 I0.1 I0 W0.1 F2   I1.1 I1   W0 F2.1 W1.1 W1 ...
    """

    name = "v-half"
    description = "two chunks a device in a V, half the memory and half the bubble of 1F1B"

    def block(self, device: int, devices: int) -> Block:
        """Return a block in which forwards go down and gradients up again every other slot."""
        # Without three more slots for even K, passes would fall into the same slot.
        wait = 3 if devices % 2 == 0 else 0
        return (
            2 * device,
            3 * devices - device - 2,
            3 * devices + wait + 2 * device - 1,
            6 * devices + wait - device - 2,
        )

    def most_in_flight(self, devices: int) -> int:
        """Return what weighs as much as K / 2 + 1 micro-batches under 1F1B, rounded down."""
        return 2 * ((devices + 2) // 2)


class VMin(_ControllableMemory):
    """V-Min (Qi et al. 2024, "Pipeline parallelism with controllable memory", section 3).

    Every pass follows that of the neighbour at once, so that a device holds about a third of what
    the first one holds under 1F1B, the least that is possible; the bubble is about two thirds as
    long. Two devices, three micro-batches per step, u = optimizer step:

        device 0  F0 .  .    F0.1 I0.1 F1   W0.1 I0 W0   F1.1 I1.1 F2   W1.1 I1 W1   F2.1 I2.1 ...
        device 1  .  F0 F0.1 .    .    I0.1 I0   F1 F1.1 W0.1 W0   I1.1 I1   F2 F2.1 W1.1 W1 ...
    """

    name = "v-min"
    description = "two chunks a device in a V, a third of the memory of 1F1B"

    def block(self, device: int, devices: int) -> Block:
        """Return a block in which a micro-batch goes through all stages without a stop."""
        # Without two more slots for K = 3, 6, ..., passes would fall into the same slot.
        wait = 2 if devices % 3 == 0 else 0
        return (
            device,
            2 * devices - 1 - device,
            2 * devices + wait + device,
            4 * devices + wait - 1 - device,
        )

    def most_in_flight(self, devices: int) -> int:
        """Return what weighs as much as (K + 4) / 3 micro-batches under 1F1B, rounded down."""
        return 2 * ((devices + 4) // 3)


# All devices of a pipeline ask in turn; large ones take gigabytes.
@lru_cache(maxsize=2)
def squeezed(
    blocks: tuple[Block, ...], most_in_flight: int, micro_batches: int
) -> tuple[tuple[Pass, ...], ...]:
    """Return by device the order in which repeated building blocks run, each pass early.

    Forwards keep the order among themselves that the building blocks give them, and so do
    gradients of inputs. Slot by slot, a device runs of its next forward and its next gradient of an
    input the one that the blocks have earlier, if its data is there and, for a forward, it holds
    less than `most_in_flight`. If neither can run it runs a gradient of weights that was put off.

    No device waits for ever where repeated building blocks never hold more than `most_in_flight`:
    of all passes still to run the one that comes first in the blocks has its data, and its device
    holds no more than it does there, once nothing is put off any longer.
    """
    devices = [_Device(block, micro_batches, most_in_flight) for block in blocks]
    while any(device.has_more for device in devices):
        # What a slot yields is there for others in the next one.
        chosen = [device.next_step(_there(devices, k)) for k, device in enumerate(devices)]
        assert any(chosen), "the building blocks hold more than most_in_flight"
        for device, step in zip(devices, chosen, strict=True):
            if step:
                device.run(step)
    return tuple(tuple(device.order) for device in devices)


_Step = tuple[int, int, int]
"""The slot of a pass in the repeated building block, its place there, and the micro-batch."""

_FORWARDS, _GRADIENTS, _WEIGHTS = (0, 1), (2, 3), 4
"""Places in a building block, and what stands for gradients of weights."""


class _Device:
    """What a device has run in the slots before, and what it may run in this one."""

    def __init__(self, block: Block, micro_batches: int, most_in_flight: int) -> None:
        self.forwards = _repeated(block, _FORWARDS, micro_batches)
        self.gradients = _repeated(block, _GRADIENTS, micro_batches)
        self.put_off: deque[_Step] = deque()
        self.done = [0] * len(block)
        self.held = 0
        self.most_in_flight = most_in_flight
        self.order: list[Pass] = []

    @property
    def has_more(self) -> bool:
        """Whether anything is still to run."""
        return bool(self.forwards or self.gradients or self.put_off)

    def next_step(self, there: Sequence[int]) -> _Step | None:
        """Return what runs in this slot, given how many inputs are there by place in the block."""
        queues = [self.gradients]
        if self.held < self.most_in_flight:
            queues.append(self.forwards)
        heads = (queue[0] for queue in queues if queue)
        ready = [step for step in heads if step[2] < there[step[1]]]
        if not ready and self.put_off:
            slot, _, micro_batch = self.put_off[0]
            return slot, _WEIGHTS, micro_batch
        return min(ready, default=None)

    def run(self, step: _Step) -> None:
        """Run what has been chosen."""
        _, place, micro_batch = step
        if place == _WEIGHTS:
            _, gradient, _ = self.put_off.popleft()
            self.held -= 1
            self.order.append(BackwardWeights(micro_batch, 3 - gradient))
            return
        self.done[place] += 1
        if place in _FORWARDS:
            self.forwards.popleft()
            self.held += 1
            self.order.append(Forward(micro_batch, place))
        else:
            self.put_off.append(self.gradients.popleft())
            self.order.append(BackwardInput(micro_batch, 3 - place))


def _repeated(block: Block, places: Sequence[int], micro_batches: int) -> deque[_Step]:
    """Return the steps of a building block's places for all micro-batches, by their slots."""
    return deque(
        sorted(
            (block[place] + PERIOD * micro_batch, place, micro_batch)
            for micro_batch in range(micro_batches)
            for place in places
        )
    )


def _there(devices: Sequence[_Device], number: int) -> tuple[int, int, int, int]:
    """Return for how many micro-batches a device has the input of each place in the block.

    On the way down it comes from the device before, on the way up from the one behind; at either
    end from the device's own other chunk, or from outside.
    """
    own = devices[number].done
    last = number == len(devices) - 1
    down = devices[number - 1].done if number else (sys.maxsize, 0, own[1], 0)
    up = (0, own[0], 0, own[2]) if last else devices[number + 1].done
    return down[0], up[1], down[2], up[3]
