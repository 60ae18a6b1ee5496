"""ZB-H1 and ZB-H2: 1F1B whose gradients of weights fill what would be idle time."""

from abc import abstractmethod
from collections.abc import Iterator

from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.instructions import BackwardInput, BackwardWeights, Forward, Pass


class _ZeroBubble(ChunkedSchedule):
    """Forwards a fixed number ahead, gradients of weights a fixed number behind."""

    splits_backward = True

    @abstractmethod
    def warm_up(self, device: int, devices: int) -> int:
        """Return how many forwards come before the first backward."""

    @abstractmethod
    def put_off(self, device: int) -> int:
        """Return by how many micro-batches gradients of weights are behind those of inputs."""

    def order(self, device: int, devices: int, micro_batches: int) -> Iterator[Pass]:
        """Yield forwards for the warm-up, then I, W and F in turn, then the W that are left."""
        warm_up = min(self.warm_up(device, devices), micro_batches)
        behind = self.put_off(device)
        yield from map(Forward, range(warm_up))
        for micro_batch in range(micro_batches):
            yield BackwardInput(micro_batch)
            if micro_batch >= behind:
                yield BackwardWeights(micro_batch - behind)
            if micro_batch + warm_up < micro_batches:
                yield Forward(micro_batch + warm_up)
        yield from map(BackwardWeights, range(max(0, micro_batches - behind), micro_batches))


class ZeroBubbleH1(_ZeroBubble):
    """ZB-H1 (Qi et al. 2024, "Zero bubble pipeline parallelism", section 2.3).

    Later devices put off more gradients of weights, so that the one before them gets its gradient
    sooner and they fill their own drain. Every device holds as many micro-batches as the first one
    does under 1F1B; the bubble is a third as long if F, I and W take equally long. Two devices,
    four micro-batches per step, u = optimizer step:

        device 0  F0 F1 .  I0 W0 F2 I1 W1 F3 I2 W2 I3 W3u
        device 1  .  F0 I0 F1 I1 W0 F2 I2 W1 F3 I3 W2 W3u
    """

    name = "zb-h1"
    description = "1F1B that puts off gradients of weights, at the same memory"

    def warm_up(self, device: int, devices: int) -> int:
        """Return K - k, as under 1F1B."""
        return devices - device

    def put_off(self, device: int) -> int:
        """Return k: later devices hold as much as the first one."""
        return device


class ZeroBubbleH2(_ZeroBubble):
    """ZB-H2 (Qi et al. 2024, "Zero bubble pipeline parallelism", section 2.3).

    Twice as many forwards as under ZB-H1 fill the warm-up as well, so that no device ever waits if
    F, I and W take equally long, for about twice the memory. Two devices, four micro-batches per
    step, u = optimizer step:

        device 0  F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3u .
        device 1  .  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2  W3u
    """

    name = "zb-h2"
    description = "1F1B that puts off gradients of weights, without a bubble for twice the memory"

    def warm_up(self, device: int, devices: int) -> int:
        """Return 2 (K - k) - 1: the first gradient is there when the last of these is done."""
        return 2 * (devices - device) - 1

    def put_off(self, device: int) -> int:
        """Return 2 k: later devices hold as much as the first one."""
        return 2 * device
