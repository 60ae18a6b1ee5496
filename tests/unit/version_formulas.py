"""Which version of the weights each pass sees under FBP.

n is a micro-batch counted from the last drain, d the number of micro-batches by which forwards are
ahead at the stage (0 for every schedule that flushes), M the micro-batches of an optimizer step. A
version is the number of updates since the drain.
"""


def delay(stage: int, stages: int, lead: int = 1) -> int:
    """Return d of `stage`, counted from 0: lead * (stages - 1 - stage)."""
    return lead * (stages - 1 - stage)


def forward_version(micro_batch: int, delay: int, micro_batches_per_step: int) -> int:
    """Return floor(max(n - d, 0) / M): only n - d backwards precede the forward of n."""
    return max(micro_batch - delay, 0) // micro_batches_per_step


def backward_version(micro_batch: int, micro_batches_per_step: int) -> int:
    """Return floor(n / M), the same at every stage."""
    return micro_batch // micro_batches_per_step


def lag(micro_batch: int, delay: int, micro_batches_per_step: int) -> int:
    """Return by how many updates the backward of a micro-batch is newer than its forward."""
    return backward_version(micro_batch, micro_batches_per_step) - forward_version(
        micro_batch, delay, micro_batches_per_step
    )


def is_lagged(micro_batch: int, delay: int, micro_batches_per_step: int) -> bool:
    """Tell if an update comes between the forward and the backward of a micro-batch."""
    return lag(micro_batch, delay, micro_batches_per_step) > 0


def in_flight_bound(stage: int, stages: int, lead: int = 1) -> int:
    """Return how many micro-batches are between forward and backward at once: d + 1."""
    return delay(stage, stages, lead) + 1
