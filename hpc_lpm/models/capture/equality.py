"""A chain of layers is compared with the module that it was made of, bit for bit."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.activation import differentiable, taken_apart, tensors_of
from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.pieces import Piece
from hpc_lpm.models.capture.refusal import RefusedError
from hpc_lpm.models.capture.state import named_state, state_kept
from hpc_lpm.random_streams import seeded_generators
from hpc_lpm.user_functions import describe_raised

_SEED = 20


def check_equal(
    module: nn.Module, pieces: Sequence[Piece], call: Call, select: Callable[[Any], Any]
) -> None:
    """Compare outputs and buffers in both modes, and gradients in training, for some batch sizes.

    Random layers draw the same numbers in both, since the generators start in the same state.

    Raises:
        RefusedError: if anything differs.
    """
    samples = call.batch_size or 0
    batches = [list(range(samples)), [*range(samples), 0], [0]] if samples else [[]]
    layers = _layers_with_shared_parameters(pieces)
    names = {
        name: found
        for number, piece in enumerate(pieces)
        for name, found in ((f"{number}.{own}", found) for own, found in piece.original.items())
    }
    with state_kept(module):
        for chosen in batches:
            inputs = call.with_samples(chosen) if chosen else call.activation
            for training in (False, True):
                _compare(module, layers, names, call, inputs, select, training)


def _compare(
    module: nn.Module,
    layers: Sequence[nn.Module],
    names: dict[str, str],
    call: Call,
    inputs: Any,
    select: Callable[[Any], Any],
    training: bool,
) -> None:
    def original(activation: Any) -> Any:
        return select(call.run(module, activation))

    def chain(activation: Any) -> Any:
        for layer in layers:
            activation = layer(activation)
        return activation

    module.train(training)
    for layer in layers:
        layer.train(training)
    mode = "training" if training else "evaluation"
    where = f"in {mode} mode with {call.size_of(inputs)} samples"
    try:
        expected = _results(original, inputs, training)
    except Exception as error:
        if call.size_of(inputs) == 1:  # such as BatchNorm, which needs more
            return
        raise RefusedError(
            f"raises {describe_raised(error)} itself {where}",
            "let it take any number of samples",
        ) from error
    try:
        found = _results(chain, inputs, training)
    except Exception as error:
        raise RefusedError(
            f"works differently for other numbers of samples ({type(error).__name__} {where})",
            "make the operations independent of the number of samples",
        ) from error
    if not _same(expected, found):
        raise RefusedError(
            f"returns or differentiates to other numbers once captured, {where}",
            "leave out state that is neither a parameter nor a buffer",
        )
    state = dict(named_state(module))
    parts = dict(named_state(nn.ModuleList(layers)))
    for own, name in names.items():
        if not _equal(state[name].grad, parts[own].grad) or not _equal(state[name], parts[own]):
            raise RefusedError(
                f"leaves {name} with another value or gradient once captured, {where}",
                "keep what forward changes in registered buffers",
            )


def _results(function: Callable[[Any], Any], inputs: Any, backward: bool) -> list[Tensor | None]:
    """Return outputs, and gradients of the inputs if the pass goes backward as well."""
    tensors, structure = taken_apart(inputs)
    leaves = [tensor.detach().clone().requires_grad_(differentiable(tensor)) for tensor in tensors]
    with seeded_generators(_SEED), torch.enable_grad():
        # The layers leave their input alone, the module may not.
        outputs = tensors_of(function(structure.fill([_handed(leaf) for leaf in leaves])))
        roots = [output for output in outputs if output.requires_grad and backward]
        gradients = [torch.randn_like(output) for output in roots]
        if roots:
            torch.autograd.backward(roots, gradients)
    return [*(output.detach() for output in outputs), *(leaf.grad for leaf in leaves)]


def _handed(leaf: Tensor) -> Tensor:
    return leaf.clone() if leaf.requires_grad else leaf


def _same(expected: Sequence[Tensor | None], found: Sequence[Tensor | None]) -> bool:
    return len(expected) == len(found) and all(
        _equal(one, other) for one, other in zip(expected, found, strict=True)
    )


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    """Tell if two tensors have the same bits, as NaN has too."""
    if first is None or second is None:
        return first is second
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.layout != second.layout:
        return False
    if first.layout != torch.strided:
        # Such as the gradient of nn.Embedding(sparse=True).
        first, second = first.to_dense(), second.to_dense()
    bits = [tensor.detach().contiguous().flatten().view(torch.uint8) for tensor in (first, second)]
    return torch.equal(*bits)


def _layers_with_shared_parameters(pieces: Sequence[Piece]) -> list[nn.Module]:
    """Build the layers with one parameter for what the module shares, so that gradients add up."""
    shared: dict[int, nn.Parameter] = {}
    layers = []
    for piece in pieces:
        layer = piece.builder()
        own = dict(layer.named_parameters(remove_duplicate=False))
        for name, tensor in piece.tensors.items():
            if name in own:
                holder, _, last = name.rpartition(".")
                one = shared.setdefault(id(tensor), own[name])
                setattr(layer.get_submodule(holder), last, one)
        layers.append(layer)
    return layers
