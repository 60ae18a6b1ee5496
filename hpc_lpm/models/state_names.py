"""The names under which a model's weights are known outside: those of the user's own module.

A layer that was captured from a module says which of the module's names each of its tensors has.
The tensors of any other layer are named `LAYER.TENSOR`, after the layer and their name within it.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from hpc_lpm.models.layered import LayeredModel


def outside_name(model: LayeredModel, index: int, name: str) -> str | None:
    """Return the name outside of a tensor of layer `index`; None for one that is not saved.

    A captured module has tensors that it does not save, such as tables that it computes.
    """
    layer = model.layers[index]
    if is_captured(model):
        return layer.original.get(name)
    return f"{layer.name}.{name}"


def original_state(model: LayeredModel, layers: Mapping[int, nn.Module]) -> dict[str, Tensor]:
    """Return the parameters and buffers of these layers under their names outside.

    With all layers of a captured module it is what the module's `load_state_dict` takes: buffers
    are included, and a tensor that the module knows by several names is there under each.
    """
    tensors = {}
    for index, layer in layers.items():
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            tensors[index, name] = tensor.detach()
    return under_outside_names(model, tensors)


def under_outside_names(
    model: LayeredModel, tensors: Mapping[tuple[int, str], Tensor]
) -> dict[str, Tensor]:
    """Return tensors, each given by its layer's index and its name there, under names outside."""
    state = {}
    for (index, name), tensor in tensors.items():
        outside = outside_name(model, index, name)
        if outside is not None:
            state[outside] = tensor
    for alias, name in model.aliases.items():
        if name in state:
            state[alias] = state[name]
    return state


def is_captured(model: LayeredModel) -> bool:
    """Tell if a model was captured from a module, whose names its tensors have outside."""
    return any(layer.original for layer in model.layers)
