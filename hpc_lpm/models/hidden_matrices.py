"""Which parameters of a model are hidden matrices, those that the optimizer Muon orthogonalises.

The answer is a fact of the whole model, wherever it is cut: the ranks tell each other the roles of
the parameters that they hold, and each decides by all of them. A parameter is a hidden matrix if

* it has two dimensions, or is the kernel of a convolution, which counts as a matrix with a row for
  each of its first dimension, and has more than one row and more than one column;
* no module that normalises holds it: one whose class has "norm" in its name;
* it is no embedding: no nn.Embedding or nn.EmbeddingBag holds it, and none of its names has
  "embed" in it;
* it is not the head: the last parameter of the model that fulfils the first two conditions.

A tied weight is one parameter, so that a head that shares the weight of the embedding is none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.parameter_names import ParameterNames

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


@dataclass(frozen=True)
class WeightRole:
    """What one parameter of a layer is, as far as its own layer tells.

    `layer` and `name` are its layer's index and its name there, `owner` those of the parameter that
    it is a copy of, if it is tied to one.
    """

    layer: int
    name: str
    owner: tuple[int, str]
    is_matrix: bool
    is_embedding: bool


def weight_roles(model: LayeredModel, index: int, layer: nn.Module) -> list[WeightRole]:
    """Return the roles of the parameters of layer `index`, in their order in the layer.

    Args:
        model: the model that the layer belongs to.
        index: the layer's index in the model.
        layer: the layer itself, as the model builds it.
    """
    names = ParameterNames(model)
    held_by = {
        f"{path}.{name}" if path else name: type(module)
        for path, module in layer.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    held_by |= model.layers[index].holders
    return [
        WeightRole(
            index,
            name,
            names.owner_of((index, name)),
            _is_matrix(parameter, held_by[name]),
            issubclass(held_by[name], nn.Embedding | nn.EmbeddingBag)
            or any("embed" in each.lower() for each in names.of(index, name)),
        )
        for name, parameter in layer.named_parameters()
    ]


def _is_matrix(parameter: nn.Parameter, holder: type[nn.Module]) -> bool:
    if parameter.dim() != 2 and not (parameter.dim() > 2 and issubclass(holder, _CONVOLUTIONS)):
        return False
    rows = parameter.shape[0]
    is_vector = rows <= 1 or parameter.numel() <= rows
    return not is_vector and "norm" not in holder.__name__.lower()


def hidden_matrices(roles: Iterable[WeightRole]) -> set[tuple[int, str]]:
    """Return the hidden matrices of a model, by their layers' indices and their names there.

    Args:
        roles: those of all parameters of the model, the layers in any order.
    """
    ordered = sorted(roles, key=lambda role: role.layer)  # stable: in order within a layer
    matrices = [role for role in ordered if role.is_matrix]
    others = {role.owner for role in matrices if role.is_embedding}
    others.update(role.owner for role in matrices[-1:])  # the head
    return {(role.layer, role.name) for role in matrices if role.owner not in others}
