"""Interleaved 1F1B: several chunks of the model on each device, dealt out in a loop."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.instructions import Backward, Forward, Pass


class Interleaved(ChunkedSchedule):
    """Interleaved 1F1B with a flush (Narayanan et al. 2021, section 2.2).

    Micro-batches run through a device's chunks in groups of as many as there are devices, so that
    the bubble is as long as one chunk's, v times shorter than 1F1B's. Where the groups do not come
    out even, the first ones are larger. Two devices with two chunks each, two micro-batches per
    step, u = optimizer step:

        device 0  F0   F1   F0.1 F1.1 .    B0.1 .    B1.1 B0   B1u
        device 1  .    F0   F1   F0.1 B0.1 F1.1 B1.1 B0   B1u  .
    """

    name = "interleaved-1f1b"
    description = "1F1B with several chunks of the model on each device"
    chunks = 2
    takes_chunks = True

    def order(self, device: int, devices: int, micro_batches: int) -> Iterator[Pass]:
        """Yield forwards for the warm-up, then forwards and backwards in turn, then the rest."""
        groups = _groups(devices, micro_batches)
        forwards = list(_through_chunks(groups, range(self.chunks)))
        backwards = list(_through_chunks(groups, range(self.chunks - 1, -1, -1)))
        before_last_chunk = (self.chunks - 1) * len(groups[0])
        # Without chunks a step back costs one forward fewer: the gradient has no loop to run.
        hops = devices - 1 - device if self.chunks == 1 else 2 * (devices - 1 - device)
        warm_up = min(before_last_chunk + hops, len(forwards))
        yield from (Forward(*each) for each in forwards[:warm_up])
        for forward, backward in zip(forwards[warm_up:], backwards, strict=False):
            yield Forward(*forward)
            yield Backward(*backward)
        yield from (Backward(*each) for each in backwards[len(forwards) - warm_up :])


def _groups(devices: int, micro_batches: int) -> list[range]:
    """Return groups of at least as many micro-batches as there are devices, if there are so many.

    A smaller group behind others would be overtaken by the backwards that its device waits for.
    """
    count = max(1, micro_batches // devices)
    size, larger = divmod(micro_batches, count)
    ends = list(accumulate(size + (number < larger) for number in range(count)))
    return [range(first, end) for first, end in pairwise([0, *ends])]


def _through_chunks(groups: Sequence[range], chunks: range) -> Iterator[tuple[int, int]]:
    """Yield micro-batch and chunk in order: a group runs through all chunks, then the next one."""
    for group in groups:
        for chunk in chunks:
            for micro_batch in group:
                yield micro_batch, chunk
