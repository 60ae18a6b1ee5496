"""Runs the layers of a model once, one after the other, to find the first one that cannot run."""

import torch

from hpc_lpm.activation import (
    Activation,
    copied,
    describe_tensors,
    leaves_like,
    tensors_of,
)
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.random_streams import generators_kept, set_generators

_SEED = 0


def examine_layers(model: LayeredModel, inputs: Activation) -> None:
    """Run every layer forward and backward, in training mode, on what the layer before returned.

    Only one layer is held at a time. The loss is left out, since its targets are not known here.

    Args:
        model: whose layers run.
        inputs: what the first layer takes.

    Raises:
        InputError: naming the first layer that fails, and what it was given.
    """
    with generators_kept(), torch.enable_grad():
        for index in range(len(model.layers)):
            layer = model.build_layer(index, _SEED).train()
            set_generators((_SEED, index))
            given = leaves_like(inputs)
            try:
                # Copied, since a layer may change its input in place.
                outputs = layer(copied(given, keep_history=True))
                roots = [tensor for tensor in tensors_of(outputs) if tensor.requires_grad]
                learning = [
                    tensor
                    for tensor in (*layer.parameters(), *tensors_of(given))
                    if tensor.requires_grad
                ]
                if roots:
                    ones = [torch.ones_like(root) for root in roots]
                    torch.autograd.grad(roots, learning, ones, allow_unused=True)
            except Exception as error:
                raise failing_layer(model, index, inputs, error) from error
            inputs = leaves_like(outputs)


def failing_layer(
    model: LayeredModel, index: int, inputs: Activation, error: Exception
) -> InputError:
    """Return the error to raise for a layer that fails on what it was given."""
    source = "layer before returns" if index else "data set holds"
    reason = str(error).strip().splitlines()
    return InputError(
        f"layer {index} ({model.layers[index].name}) of model {model.name!r} fails on its inputs "
        f"{describe_tensors(tensors_of(inputs))}: {reason[0] if reason else type(error).__name__}; "
        f"a layer must accept what the {source}."
    )
