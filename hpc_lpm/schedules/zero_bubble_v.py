"""ZB-V: two chunks on each device, placed in a V, and no bubble at the memory of 1F1B."""

from collections.abc import Iterator

from hpc_lpm.schedules.chunked import ChunkedSchedule, NumberedPasses
from hpc_lpm.schedules.instructions import BackwardInput, BackwardWeights, Forward, Pass


class ZeroBubbleV(ChunkedSchedule):
    """ZB-V (Qi et al. 2024, "Zero bubble pipeline parallelism", section 6).

    A micro-batch goes down the devices through their chunks 0 and up again through their chunks 1,
    so that the first device also computes the loss. With at least 2 K - 1 micro-batches of passes
    that all take equally long no device ever waits, and each holds 2 K micro-batches in its two
    chunks together, which weigh as much as K under 1F1B. For fewer micro-batches the surplus is
    left out. Two devices, three micro-batches per step, u = optimizer step:

        device 0  F0 F1 F2   F0.1 I0.1 W0.1 F1.1 I1.1 W1.1 I0 W0   F2.1 I2.1 W2.1 I1   W1 I2 ...
        device 1  .  F0 F0.1 F1   F1.1 I0.1 W0.1 F2   I0   W0 F2.1 I1.1 W1.1 I1   I2.1 I2 W1 ...
    """

    name = "zb-v"
    description = "two chunks a device in a V, without a bubble at the memory of 1F1B"
    chunks = 2
    splits_backward = True
    folded = True

    def order(self, device: int, devices: int, micro_batches: int) -> Iterator[Pass]:
        """Yield the passes of enough micro-batches for the schedule, without the surplus."""
        padded = max(micro_batches, 2 * devices - 1)
        for item in _passes(device, devices, padded):
            if item.micro_batch < micro_batches:
                yield item


def _passes(device: int, devices: int, micro_batches: int) -> Iterator[Pass]:
    """Yield the passes of at least 2 `devices` - 1 micro-batches."""
    numbered = NumberedPasses()
    forward = numbered.of(Forward)
    gradient, weights = numbered.of(BackwardInput), numbered.of(BackwardWeights)
    below = devices - device
    for _ in range(2 * below - 1):
        yield forward(0)
    for _ in range(device):
        yield from (forward(1), forward(0))
    for _ in range(below):
        yield from (forward(1), gradient(1), weights(1))
    forwards_left = micro_batches - (2 * below - 1) - device
    for place in range(micro_batches - devices):
        if place < forwards_left:
            yield forward(0)
        yield from (gradient(0), weights(0), forward(1), gradient(1), weights(1))
    for _ in range(device):
        yield from (gradient(0), gradient(1))
    for _ in range(below):
        yield from (gradient(0), weights(0))
    # What has been put off in the drain: the last gradients of weights of either chunk.
    yield from (weights(1) for _ in range(device))
    yield from (weights(0) for _ in range(device))
