"""Batches that a script hands over, one optimizer step at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, mapped
from hpc_lpm.data.samples import Draws, Samples
from hpc_lpm.engine.batches import MicroBatches, divided_batch
from hpc_lpm.engine.rehearsal import RehearsedPass, passes_over
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.errors import InputError
from hpc_lpm.models.own_module import as_arguments, count_samples


class GivenSamples(Samples):
    """The samples of one batch, which are in memory.

    Tensors have the samples as their first dimension; any others belong to every micro-batch, like
    values that are no tensors. What a rank has no use for may be left out.

    Args:
        samples: their number.
        inputs: the model's inputs, None on a rank that does not run the first layer.
        targets: the targets, None on a rank that does not compute the loss.
    """

    def __init__(self, samples: int, inputs: Activation, targets: Activation) -> None:
        self._samples = samples
        self._inputs = inputs
        self._targets = targets

    def __len__(self) -> int:
        return self._samples

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return copies of the inputs of neighbouring samples, in order."""
        return self._part(self._inputs, indices)

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return copies of the targets of neighbouring samples, in order."""
        return self._part(self._targets, indices)

    def _part(self, activation: Activation, indices: Tensor) -> Activation:
        first, stop = int(indices[0]), int(indices[-1]) + 1

        def part(tensor: Tensor) -> Tensor:
            of_samples = tensor.dim() > 0 and len(tensor) == self._samples
            # Copied, since layers may change their input in place, and the batch is the script's.
            return (tensor[first:stop] if of_samples else tensor).detach().clone()

        return mapped(activation, part)


class GivenBatches:
    """Divides the batches of a script into micro-batches, on one rank.

    Args:
        context: of the run.
        check_size: refuses a batch that is smaller than usual, given the number of its samples.
    """

    def __init__(self, context: RunContext, check_size: Callable[[int], None]) -> None:
        self._context = context
        self._check_size = check_size
        self._rehearsed: dict[bool, set[int]] = {True: set(), False: set()}
        self._sizes = {context.settings.batch_size}

    def training(
        self, inputs: Activation, targets: Activation, micro_batches_before: int
    ) -> MicroBatches:
        """Return the micro-batches of one optimizer step, in the order of the samples.

        Args:
            inputs: of the batch.
            targets: of the batch.
            micro_batches_before: the number of micro-batches trained before, over all replicas.

        Raises:
            InputError: if the batch is too large, or smaller than the strategy takes.
        """
        settings, replicas = self._context.settings, self._context.replicas
        samples = self._samples(inputs, targets)
        count, usual = len(samples), settings.batch_size
        if count > usual:
            raise InputError(
                f"train_batch was given a batch of {count} samples, accepted are {usual} "
                f"({settings.micro_batches} micro-batches of {settings.micro_batch_size}), or "
                f"fewer for a last one: give batch_size={count} to initialize, or smaller batches."
            )
        if count not in self._sizes:
            self._check_smaller(count)
            self._sizes.add(count)
        per_step = settings.micro_batches * replicas
        chunks = divided_batch(torch.arange(count), usual, usual // per_step, replicas)
        return MicroBatches(samples, chunks, per_step, micro_batches_before)

    def _check_smaller(self, count: int) -> None:
        try:
            self._check_size(count)
        except InputError:
            settings = self._context.settings
            raise InputError(
                f"train_batch was given a batch of {count} samples, accepted with strategy "
                f"{settings.strategy} are whole batches of {settings.batch_size}: let the loader "
                "drop its last batch, as with drop_last=True."
            ) from None

    def evaluation(self, pair: object, micro_batches_before: int) -> MicroBatches:
        """Return the micro-batches of a batch (inputs, targets) of an evaluation.

        Raises:
            InputError: if it is no such pair.
        """
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"evaluate was given a batch of type {type(pair).__name__}, accepted are pairs "
                "(inputs, targets): let the loader yield them."
            )
        samples = self._samples(*pair)
        chunks = torch.split(torch.arange(len(samples)), self._context.micro_batch_size)
        return MicroBatches(samples, chunks, 1, micro_batches_before)

    def passes_before(self, batch: MicroBatches, *, training: bool) -> list[RehearsedPass]:
        """Return the passes to rehearse before a batch: those of sizes that it has first."""
        known = self._rehearsed[training]
        sizes = {batch.size(n) for n in range(len(batch))} - known
        passes = list(passes_over(batch.samples, sizes, training=training))
        if known:
            # A size may be rehearsed twice only before anything is in flight.
            passes = list({each.samples: each for each in reversed(passes)}.values())[::-1]
        known |= sizes
        return passes

    def _samples(self, inputs: Activation, targets: Activation) -> GivenSamples:
        inputs = as_arguments(inputs)
        count = count_samples(inputs, targets)
        context = self._context
        is_first = is_last = True
        if context.plan:
            places = context.topology.places
            is_first, is_last = places[0].is_first, places[-1].is_last
        # Copied, since a script may fill the same memory with its next batch.
        return GivenSamples(
            count,
            mapped(inputs, torch.clone) if is_first else None,
            mapped(targets, torch.clone) if is_last else None,
        )
