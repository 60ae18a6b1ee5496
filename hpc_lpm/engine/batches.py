"""Divides a split into micro-batches, in the same way for every strategy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import epoch_order
from hpc_lpm.data.samples import Draws, Samples
from hpc_lpm.errors import InputError
from hpc_lpm.options import LastBatch


@dataclass(frozen=True)
class MicroBatches:
    """A sequence of micro-batches over one part of a data set, numbered from 0.

    An optimizer step takes `per_step` micro-batches; the last step may have fewer and smaller ones.
    `first_index` is the number of micro-batches trained before this sequence (see `number`) and
    `first_step` that of optimizer steps; `epoch` counts from 0. The sequence belongs to one of
    `replicas` that train at the same time; `step_samples` counts the samples of all of them.
    Training samples are changed at random by `draws`, which is None in evaluation.
    """

    samples: Samples
    chunks: tuple[Tensor, ...]
    per_step: int = 1
    first_index: int = 0
    epoch: int = 0
    replicas: int = 1
    all_step_samples: tuple[int, ...] | None = None
    draws: Draws | None = None
    first_step: int = 0

    def __len__(self) -> int:
        return len(self.chunks)

    def number(self, micro_batch: int) -> int:
        """Return the number of a micro-batch within the whole training."""
        return self.first_index + micro_batch * self.replicas

    def share(self, replica: int, replicas: int) -> "MicroBatches":
        """Return the share of one replica: the micro-batches with n mod replicas = replica."""
        if replicas == 1:
            return self
        return MicroBatches(
            self.samples,
            self.chunks[replica::replicas],
            self.per_step // replicas,
            self.number(replica),
            self.epoch,
            self.replicas * replicas,
            tuple(self.step_samples()),
            self.draws,
            self.first_step,
        )

    def between(self, first_step: int, end_step: int) -> "MicroBatches":
        """Return the micro-batches of some of the optimizer steps, which keep their `number`.

        Args:
            first_step: the first step, counted from 0.
            end_step: the step after the last one.
        """
        first = first_step * self.per_step
        of_steps = self.all_step_samples
        return replace(
            self,
            chunks=self.chunks[first : end_step * self.per_step],
            first_index=self.number(first),
            first_step=self.first_step + first_step,
            all_step_samples=None if of_steps is None else of_steps[first_step:end_step],
        )

    def size(self, micro_batch: int) -> int:
        """Return the number of samples of a micro-batch."""
        return self._sizes[micro_batch]

    @cached_property
    def _sizes(self) -> list[int]:
        return [len(chunk) for chunk in self.chunks]

    def steps(self) -> Iterator[range]:
        """Yield the range of micro-batches of each optimizer step."""
        for first in range(0, len(self), self.per_step):
            yield range(first, min(first + self.per_step, len(self)))

    def step_samples(self) -> list[int]:
        """Return the number of samples of each optimizer step, over all replicas."""
        if self.all_step_samples is not None:
            return list(self.all_step_samples)
        return [sum(map(self.size, step)) for step in self.steps()]

    def loss_divisor(self, micro_batch: int) -> float:
        """Return the divisor of a mean loss by which every sample of a step has the same weight.

        Where all micro-batches of a step have the same size, it is their number. The gradients that
        replicas accumulate are averaged afterwards.
        """
        return self.samples_of_step(micro_batch) / (self.size(micro_batch) * self.replicas)

    def samples_of_step(self, micro_batch: int) -> int:
        """Return the number of samples, over all replicas, of the step of a micro-batch."""
        step = micro_batch // self.per_step
        if self.all_step_samples is not None:
            return self.all_step_samples[step]
        first = step * self.per_step
        return sum(map(self.size, range(first, min(first + self.per_step, len(self)))))

    def inputs(self, micro_batch: int) -> Activation:
        """Return the model's inputs of a micro-batch, samples first."""
        return self.samples.inputs(self.chunks[micro_batch], self.draws)

    def targets(self, micro_batch: int) -> Activation:
        """Return the targets of a micro-batch, samples first."""
        return self.samples.targets(self.chunks[micro_batch], self.draws)


def steps_per_epoch(samples: Samples, batch_size: int, last_batch: LastBatch) -> int:
    """Return the number of optimizer steps in an epoch, with the smaller last batch if it is kept.

    Raises:
        InputError: if the split is smaller than one batch.
    """
    steps, remainder = divmod(len(samples), batch_size)
    if steps == 0:
        raise InputError(
            f"--batch-size {batch_size} is larger than the {len(samples)} training samples of the "
            f"dataset: use a batch of at most {len(samples)}."
        )
    return steps + 1 if remainder and last_batch == "keep" else steps


def samples_of_steps(
    samples: Samples, batch_size: int, steps_an_epoch: int, steps: int
) -> list[int]:
    """Return the number of samples, over all replicas, of each of the first `steps` steps."""
    last = min(batch_size, len(samples) - (steps_an_epoch - 1) * batch_size)
    return [last if (n + 1) % steps_an_epoch == 0 else batch_size for n in range(steps)]


def training_micro_batches(
    samples: Samples,
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

    The `replicas` share the `micro_batches` of a step. The shuffled order depends on (seed, epoch)
    alone; samples that come in order are not shuffled. A smaller last batch that is kept is divided
    as evenly as possible into the fewest micro-batches that hold it, the same number for every
    replica.
    """
    size = batch_size // micro_batches
    whole = len(samples) // batch_size
    order = (
        torch.arange(len(samples)) if samples.in_order else epoch_order(len(samples), seed, epoch)
    )
    chunks = torch.split(order[: min(whole, steps) * batch_size], size)
    smaller = divided_batch(order[whole * batch_size :], batch_size, size, replicas)
    if last_batch == "drop":
        smaller = ()
    if steps > whole:
        chunks += smaller
    return MicroBatches(
        samples,
        chunks,
        micro_batches,
        first_index=epoch * (whole * micro_batches + len(smaller)),
        epoch=epoch,
        draws=Draws(seed, epoch),
        first_step=epoch * (whole + bool(smaller)),
    )


def divided_batch(
    order: Tensor, batch_size: int, micro_batch_size: int, replicas: int
) -> tuple[Tensor, ...]:
    """Divide one batch into micro-batches.

    A smaller batch is divided as evenly as possible into the fewest micro-batches that hold it, the
    same number for every replica.

    Args:
        order: the numbers of its samples, int64 [n].
        batch_size: the samples of a whole batch.
        micro_batch_size: the samples of a micro-batch of a whole batch.
        replicas: that share the micro-batches.
    """
    if len(order) == batch_size:
        return torch.split(order, micro_batch_size)
    count = _last_micro_batches(len(order), micro_batch_size, replicas)
    return torch.tensor_split(order, count) if count else ()


def _last_micro_batches(samples: int, largest: int, replicas: int) -> int:
    """Return the number of micro-batches of a smaller last batch, a multiple of the replicas."""
    return replicas * math.ceil(samples / (largest * replicas))


def training_sizes(
    samples: Samples,
    batch_size: int,
    micro_batch_size: int,
    last_batch: LastBatch,
    replicas: int = 1,
) -> set[int]:
    """Return the numbers of samples that a training micro-batch can have."""
    left = len(samples) % batch_size
    if left == 0 or last_batch == "drop":
        return {micro_batch_size}
    count = _last_micro_batches(left, micro_batch_size, replicas)
    return {micro_batch_size, left // count, math.ceil(left / count)}


def evaluation_micro_batches(samples: Samples, micro_batch_size: int) -> MicroBatches:
    """Return the micro-batches of the whole split in order, the last of which may be smaller."""
    return MicroBatches(samples, torch.split(torch.arange(len(samples)), micro_batch_size))
