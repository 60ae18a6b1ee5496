"""Batches that a script hands over, one optimizer step at a time."""

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, mapped
from hpc_lpm.data.samples import Draws, Samples
from hpc_lpm.engine.batches import MicroBatches, divided_batch


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
            # Copied, since layers may change their input in place, and scripts their batches.
            return (tensor[first:stop] if of_samples else tensor).detach().clone()

        return mapped(activation, part)


def training_batch(
    samples: GivenSamples, micro_batches: int, batch_size: int, first_index: int, replicas: int
) -> MicroBatches:
    """Return the micro-batches of one optimizer step, all in the order of the samples.

    Args:
        samples: the batch, which may be smaller than usual.
        micro_batches: the micro-batches of a whole batch, over all replicas.
        batch_size: the samples of a whole batch.
        first_index: the number of micro-batches trained before.
        replicas: the replicas of every stage, which share the micro-batches.
    """
    chunks = divided_batch(
        torch.arange(len(samples)), batch_size, batch_size // micro_batches, replicas
    )
    return MicroBatches(samples, chunks, micro_batches, first_index)
