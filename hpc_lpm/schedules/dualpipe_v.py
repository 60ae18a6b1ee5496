"""DualPipeV: forwards of one chunk beside backwards of the other, with two chunks in a V."""

from collections import deque
from collections.abc import Iterator

from hpc_lpm.schedules.chunked import ChunkedSchedule, NumberedPasses
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    Pass,
)


class DualPipeV(ChunkedSchedule):
    """DualPipeV (DeepSeek 2025, the DualPipe of arXiv 2412.19437 cut in half into a V).

    In the middle of a step a forward of one chunk and a whole backward of the other stand side by
    side, so that an engine could run them at the same time; this one runs them one after the other.
    Backwards are split only where a device would wait: at the end of the warm-up and in the drain.
    It is made for at least 2 K micro-batches: of fewer, the surplus is left out. Two devices, four
    micro-batches per step, u = optimizer step:

        device 0  F0 F1 F2   F0.1 I0.1 W0.1 F1.1 F3   B1.1 F2.1 B0   B2.1 F3.1 B1   B3.1 I2   W2 ...
        device 1  .  F0 F0.1 F1   F1.1 F2   B0.1 F2.1 B0   F3   B1.1 F3.1 B1   B2.1 B2   I3.1 I3 ...
    """

    name = "dualpipe-v"
    description = "two chunks a device in a V, forwards of one beside backwards of the other"
    chunks = 2
    splits_backward = True
    folded = True

    def order(self, device: int, devices: int, micro_batches: int) -> Iterator[Pass]:
        """Yield the passes of enough micro-batches for the schedule, without the surplus."""
        padded = max(micro_batches, 2 * devices)
        for item in _passes(device, devices, padded):
            if item.micro_batch < micro_batches:
                yield item


def _passes(device: int, devices: int, micro_batches: int) -> Iterator[Pass]:
    """Yield the passes of at least 2 `devices` micro-batches."""
    numbered = NumberedPasses()
    forward, backward = numbered.of(Forward), numbered.of(Backward)
    gradient, weights = numbered.of(BackwardInput), numbered.of(BackwardWeights)
    below = devices - 1 - device
    for _ in range(2 * below):
        yield forward(0)
    for _ in range(device + 1):
        yield from (forward(0), forward(1))
    for _ in range(below):
        yield from (gradient(1), weights(1), forward(1))
    for _ in range(micro_batches - 2 * devices + device + 1):
        yield from (forward(0), backward(1), forward(1), backward(0))
    for _ in range(below):
        yield from (backward(1), forward(1), backward(0))
    # The later half of the drain puts off gradients of weights until the device would wait.
    put_off: deque[int] = deque()
    for place in range(2 * (device + 1)):
        chunk = 1 - place % 2
        if place <= device:
            yield backward(chunk)
        else:
            yield gradient(chunk)
            put_off.append(chunk)
    for _ in range(below):
        yield weights(put_off.popleft())
        yield gradient(0)
        put_off.append(0)
    yield from map(weights, put_off)
