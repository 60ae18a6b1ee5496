"""Which samples make up each micro-batch; the same for every strategy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Split, epoch_order
from hpc_lpm.errors import InputError


@dataclass(frozen=True)
class MicroBatches:
    """A run of micro-batches over one split, numbered from 0.

    `first_index` is the number of micro-batches trained before this run, so that
    `first_index + n` names a micro-batch within the whole training.
    """

    split: Split
    chunks: tuple[Tensor, ...]
    first_index: int = 0

    def __len__(self) -> int:
        return len(self.chunks)

    def size(self, micro_batch: int) -> int:
        """Samples of this micro-batch."""
        return len(self.chunks[micro_batch])

    def inputs(self, micro_batch: int) -> Tensor:
        """Model inputs of this micro-batch."""
        return self.split.inputs(self.chunks[micro_batch])

    def targets(self, micro_batch: int) -> Tensor:
        """Targets of this micro-batch."""
        return self.split.targets(self.chunks[micro_batch])


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Return the number of whole batches in the split; a smaller remainder sits the epoch out.

    Raises:
        InputError: if there is not a single whole batch.
    """
    steps = len(split) // batch_size
    if steps == 0:
        raise InputError(
            f"--batch-size {batch_size} is larger than the {len(split)} training samples of the "
            f"dataset: use a batch of at most {len(split)}."
        )
    return steps


def training_micro_batches(
    split: Split, *, batch_size: int, micro_batches: int, steps: int, seed: int, epoch: int
) -> MicroBatches:
    """Return the micro-batches of the first `steps` optimizer steps of an epoch.

    The shuffled order depends on (seed, epoch) alone.
    """
    order = epoch_order(len(split), seed, epoch)[: steps * batch_size]
    chunks = torch.split(order, batch_size // micro_batches)
    first = epoch * steps_per_epoch(split, batch_size) * micro_batches
    return MicroBatches(split, chunks, first)


def evaluation_micro_batches(split: Split, micro_batch_size: int) -> MicroBatches:
    """Return the whole split in order; the last micro-batch may be smaller."""
    return MicroBatches(split, torch.split(torch.arange(len(split)), micro_batch_size))
