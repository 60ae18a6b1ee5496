"""Layers of a chain as they are made from a module, before they become a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from hpc_lpm.models.capture.names import unique
from hpc_lpm.models.capture.state import first_names
from hpc_lpm.models.layered import Layer, LayeredModel, ModuleEnd, Tie, WeightHolder


@dataclass(frozen=True)
class Piece:
    """A layer of the chain: its path in the user's module, and a builder that holds its weights.

    `tensors` are the module's own parameters and buffers by the layer's names, by whose identity
    ties are found, and `original` are their names in the module.
    """

    path: str
    builder: WeightHolder
    tensors: dict[str, Tensor]
    original: dict[str, str]
    ends: tuple[ModuleEnd, ...] = ()
    same_as: str = ""

    def below(self, parent: str, kind: str, last: bool) -> "Piece":
        """Return the piece as a part of a module that holds its module under the name `parent`."""
        ends = tuple(replace(end, path=f"{parent}.{end.path}") for end in self.ends)
        if last:
            ends = (*ends, ModuleEnd(parent, kind))
        return replace(
            self,
            path=f"{parent}.{self.path}" if self.path else parent,
            original={name: f"{parent}.{found}" for name, found in self.original.items()},
            ends=ends,
        )


def ties_between(pieces: Sequence[Piece]) -> tuple[Tie, ...]:
    """Return the ties of parameters that several pieces hold; the first piece owns each."""
    owners: dict[int, tuple[int, str]] = {}
    ties = []
    for number, piece in enumerate(pieces):
        for name, tensor in piece.tensors.items():
            if not isinstance(tensor, nn.Parameter):
                continue
            layer, owner = owners.setdefault(id(tensor), (number, name))
            if layer < number:
                ties.append(Tie(layer, owner, number, name))
    return tuple(ties)


def as_model(
    name: str,
    module: nn.Module,
    pieces: Sequence[Piece],
    loss: Callable[[Tensor, Tensor], Tensor],
    correct: Callable[[Tensor, Tensor], Tensor],
) -> LayeredModel:
    """Return the model whose layers are the pieces of a module.

    Buffers that the module's state_dict leaves out have no name outside.
    """
    names = unique([piece.path for piece in pieces])
    first = first_names(module)
    saved: dict[str, str] = {}
    state = module.state_dict()
    for found in state:
        if found in first:
            saved.setdefault(first[found], found)
    layers = tuple(
        Layer(
            name=name,
            build=piece.builder,
            ends=tuple(dict.fromkeys(piece.ends)),
            same_as=piece.same_as,
            original={
                own: saved[first[found]]
                for own, found in piece.original.items()
                if first[found] in saved
            },
            holders={
                own: type(module.get_submodule(first[found].rpartition(".")[0]))
                for own, found in piece.original.items()
            },
        )
        for name, piece in zip(names, pieces, strict=True)
    )
    aliases = {
        other: saved[one]
        for other, one in first.items()
        if one in saved and other != saved[one] and other in state
    }
    return LayeredModel(name, layers, loss, correct, ties_between(pieces), aliases)
