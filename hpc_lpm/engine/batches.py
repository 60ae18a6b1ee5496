"""Which samples make up each micro-batch; the same for every strategy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Split, epoch_order
from hpc_lpm.errors import InputError
from hpc_lpm.options import LastBatch


@dataclass(frozen=True)
class MicroBatches:
    """A run of micro-batches over one split, numbered from 0.

    `per_step` of them make an optimizer step; the last step may have fewer and smaller ones.
    `first_index` is the number of micro-batches trained before this run, see `number`; `epoch`
    counts from 0. Of `replicas` that train at the same time this is one; `step_samples` are those
    of all.
    """

    split: Split
    chunks: tuple[Tensor, ...]
    per_step: int = 1
    first_index: int = 0
    epoch: int = 0
    replicas: int = 1
    all_step_samples: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.chunks)

    def number(self, micro_batch: int) -> int:
        """Return the number that names a micro-batch within the whole training."""
        return self.first_index + micro_batch * self.replicas

    def share(self, replica: int, replicas: int) -> "MicroBatches":
        """Return what one of `replicas` takes of these: every one with n mod replicas = replica."""
        if replicas == 1:
            return self
        return MicroBatches(
            self.split,
            self.chunks[replica::replicas],
            self.per_step // replicas,
            self.number(replica),
            self.epoch,
            self.replicas * replicas,
            tuple(self.step_samples()),
        )

    def between(self, first_step: int, end_step: int) -> "MicroBatches":
        """Return the micro-batches of these optimizer steps of the run, numbered as they are here.

        Args:
            first_step: the first of them, from 0.
            end_step: the one after the last.
        """
        first = first_step * self.per_step
        of_steps = self.all_step_samples
        return replace(
            self,
            chunks=self.chunks[first : end_step * self.per_step],
            first_index=self.number(first),
            all_step_samples=None if of_steps is None else of_steps[first_step:end_step],
        )

    def size(self, micro_batch: int) -> int:
        """Samples of this micro-batch."""
        return len(self.chunks[micro_batch])

    def steps(self) -> Iterator[range]:
        """Yield the micro-batches of each optimizer step."""
        for first in range(0, len(self), self.per_step):
            yield range(first, min(first + self.per_step, len(self)))

    def step_samples(self) -> list[int]:
        """Return the samples of each optimizer step, over all replicas."""
        if self.all_step_samples is not None:
            return list(self.all_step_samples)
        return [sum(map(self.size, step)) for step in self.steps()]

    def loss_divisor(self, micro_batch: int) -> float:
        """Return by what a mean loss is divided so that every sample of a step counts the same.

        It is the number of micro-batches of a step where all are of the same size. What replicas
        have accumulated is averaged afterwards.
        """
        return self.samples_of_step(micro_batch) / (self.size(micro_batch) * self.replicas)

    def samples_of_step(self, micro_batch: int) -> int:
        """Return the samples, over all replicas, of the step that a micro-batch belongs to."""
        step = micro_batch // self.per_step
        if self.all_step_samples is not None:
            return self.all_step_samples[step]
        first = step * self.per_step
        return sum(map(self.size, range(first, min(first + self.per_step, len(self)))))

    def inputs(self, micro_batch: int) -> Tensor:
        """Model inputs of this micro-batch."""
        return self.split.inputs(self.chunks[micro_batch])

    def targets(self, micro_batch: int) -> Tensor:
        """Targets of this micro-batch."""
        return self.split.targets(self.chunks[micro_batch])


def steps_per_epoch(split: Split, batch_size: int, last_batch: LastBatch) -> int:
    """Return the number of batches in the split, of which the last may be smaller if it is kept.

    Raises:
        InputError: if there is not a single whole batch.
    """
    steps, remainder = divmod(len(split), batch_size)
    if steps == 0:
        raise InputError(
            f"--batch-size {batch_size} is larger than the {len(split)} training samples of the "
            f"dataset: use a batch of at most {len(split)}."
        )
    return steps + 1 if remainder and last_batch == "keep" else steps


def samples_of_steps(split: Split, batch_size: int, steps_an_epoch: int, steps: int) -> list[int]:
    """Return the samples, over all replicas, of each of the first `steps` optimizer steps."""
    last = min(batch_size, len(split) - (steps_an_epoch - 1) * batch_size)
    return [last if (n + 1) % steps_an_epoch == 0 else batch_size for n in range(steps)]


def training_micro_batches(
    split: Split,
    *,
    batch_size: int,
    micro_batches: int,
    steps: int,
    seed: int,
    epoch: int,
    last_batch: LastBatch = "drop",
    replicas: int = 1,
) -> MicroBatches:
    """Return the micro-batches of the first `steps` optimizer steps of an epoch.

    `micro_batches` of a step are shared by `replicas`. The shuffled order depends on (seed, epoch)
    alone. A last batch that is kept has as few micro-batches as hold it, as many for every
    replica and as even as can be.
    """
    size = batch_size // micro_batches
    whole = len(split) // batch_size
    order = epoch_order(len(split), seed, epoch)
    chunks = torch.split(order[: min(whole, steps) * batch_size], size)
    smaller = _last_micro_batches(len(split) % batch_size, size, replicas)
    if last_batch == "drop":
        smaller = 0
    if smaller and steps > whole:
        chunks += torch.tensor_split(order[whole * batch_size :], smaller)
    first = epoch * (whole * micro_batches + smaller)
    return MicroBatches(split, chunks, micro_batches, first, epoch)


def _last_micro_batches(samples: int, largest: int, replicas: int) -> int:
    """Return how many micro-batches a smaller last batch has: a multiple of the replicas."""
    return replicas * math.ceil(samples / (largest * replicas))


def training_sizes(
    split: Split,
    batch_size: int,
    micro_batch_size: int,
    last_batch: LastBatch,
    replicas: int = 1,
) -> set[int]:
    """Return how many samples a training micro-batch can have."""
    samples = len(split) % batch_size
    if samples == 0 or last_batch == "drop":
        return {micro_batch_size}
    count = _last_micro_batches(samples, micro_batch_size, replicas)
    return {micro_batch_size, samples // count, math.ceil(samples / count)}


def evaluation_micro_batches(split: Split, micro_batch_size: int) -> MicroBatches:
    """Return the whole split in order; the last micro-batch may be smaller."""
    return MicroBatches(split, torch.split(torch.arange(len(split)), micro_batch_size))
