"""A rehearsal before training: layers run once on real samples of every micro-batch's size.

What fails on some size, such as a normalisation over a single sample, fails before the first step.
Nothing that the training depends on is changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation, tensors_of
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.samples import Draws, Samples
from hpc_lpm.engine.batches import evaluation_micro_batches, training_sizes
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.models.module_state import ModuleState
from hpc_lpm.random_streams import generators_kept


@dataclass(frozen=True)
class RehearsedPass:
    """One pass of a rehearsal: in training or in evaluation, over some samples of a part.

    Layers draw as for micro-batch `number` of a training.
    """

    training: bool
    part: Samples
    indices: Tensor
    number: int = 0

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.indices)

    @property
    def name(self) -> str:
        """What to call the pass in messages."""
        plural = "s" if self.samples > 1 else ""
        kind = "training" if self.training else "evaluation"
        return f"rehearsal of {kind} with {self.samples} sample{plural}"

    def inputs(self) -> Activation:
        """Return the model's inputs."""
        return self.part.inputs(self.indices, self._draws())

    def targets(self) -> Activation:
        """Return the targets."""
        return self.part.targets(self.indices, self._draws())

    def _draws(self) -> Draws | None:
        return Draws(0, 0) if self.training else None


def passes_of(
    dataset: Dataset, settings: TrainSettings, micro_batch_size: int, replicas: int
) -> list[RehearsedPass]:
    """Return the passes of the rehearsal of a run, the same ones on every rank.

    Each size of a micro-batch has its turn, the largest one with other samples once more: only
    then can shapes that depend on the samples show.
    """
    size = micro_batch_size
    training = training_sizes(
        dataset.train, settings.batch_size, size, settings.last_batch, replicas
    )
    passes = list(passes_over(dataset.train, training, training=True))
    rehearsed: set[int] = set()
    for part in (dataset.test, dataset.validation):
        if part is not None:
            batches = evaluation_micro_batches(part, size)
            sizes = {batches.size(n) for n in range(len(batches))} - rehearsed
            passes += passes_over(part, sizes, training=False)
            rehearsed |= sizes
    return passes


def passes_over(part: Samples, sizes: Iterable[int], *, training: bool) -> Iterator[RehearsedPass]:
    """Yield a pass for each number of samples, and for the largest one another with others."""
    ordered = sorted(sizes, reverse=True)
    for size in ordered:
        yield RehearsedPass(training, part, torch.arange(size))
    if ordered and ordered[0] < len(part):
        # Samples that come in order would all have to be read to reach the last ones.
        last = min(2 * ordered[0], len(part)) if part.in_order else len(part)
        others = torch.arange(last - ordered[0], last)
        yield RehearsedPass(training, part, others, number=1)


@contextmanager
def rehearsing(module: nn.Module, layers: Iterable[nn.Module], *, training: bool) -> Iterator[None]:
    """Surround a pass that leaves no trace in a module's layers or in any random generator."""
    was_training = module.training
    module.train(training)
    # Of the layers alone: what the module itself has is the engine's.
    state = ModuleState(*layers)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        with generators_kept(device), torch.set_grad_enabled(training):
            yield
    finally:
        state.restore()
        module.train(was_training)


def rehearse_backward(
    layers: Mapping[int, nn.Module],
    roots: Sequence[tuple[Tensor, Tensor]],
    inputs: Activation,
    unused: set[nn.Parameter] | None = None,
    sparse: set[nn.Parameter] | None = None,
) -> list[Tensor | None]:
    """Run a rehearsed pass backward without accumulating gradients.

    Parameters whose gradients turn out to be sparse get dense ones from now on.

    Args:
        layers: that have run.
        roots: what backward starts from, each with its gradient.
        inputs: what the first layer was given.
        unused: if given, the parameters that have no gradient are added to it.
        sparse: likewise those whose gradient is sparse.

    Returns:
        The gradients of the inputs that require one, None where the roots do not depend on them.
    """
    parameters = [p for layer in layers.values() for p in layer.parameters() if p.requires_grad]
    leaves = [tensor for tensor in tensors_of(inputs) if tensor.requires_grad]
    roots = [(tensor, gradient) for tensor, gradient in roots if tensor.requires_grad]
    if not roots or not (parameters or leaves):
        if unused is not None:
            unused.update(parameters)
        return [None] * len(leaves)
    gradients = torch.autograd.grad(
        [tensor for tensor, _ in roots],
        [*parameters, *leaves],
        [gradient for _, gradient in roots],
        allow_unused=True,
    )
    for parameter, gradient in zip(parameters, gradients, strict=False):
        if gradient is None and unused is not None:
            unused.add(parameter)
        if gradient is not None and gradient.layout != torch.strided:
            _make_gradients_dense(layers.values(), parameter)
            if sparse is not None:
                sparse.add(parameter)
    return list(gradients[len(parameters) :])


def _make_gradients_dense(layers: Iterable[nn.Module], parameter: nn.Parameter) -> None:
    # Optimizers, clipping, averages and checkpoints take dense gradients; the values are the same.
    for layer in layers:
        for part in layer.modules():
            if isinstance(part, nn.Embedding | nn.EmbeddingBag):
                part.sparse = False
    # An operation of the layer's own may still give sparse ones.
    parameter.register_post_accumulate_grad_hook(_make_dense)  # type: ignore[no-untyped-call]


def _make_dense(parameter: Tensor) -> None:
    if parameter.grad is not None and parameter.grad.layout != torch.strided:
        parameter.grad = parameter.grad.to_dense()
