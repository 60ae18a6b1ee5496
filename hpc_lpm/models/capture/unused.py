"""Weights that no layer uses, which a layer holds all the same so that they are not lost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from hpc_lpm.models.capture.pieces import Piece
from hpc_lpm.models.capture.state import first_names
from hpc_lpm.models.layered import WeightHolder


class _Holding:
    """Builds what another builder builds, with some more parameters and buffers."""

    def __init__(self, builder: WeightHolder, more: Mapping[str, Tensor]) -> None:
        self._builder = builder
        self._more = dict(more)

    def __call__(self) -> nn.Module:
        layer = self._builder()
        for name, tensor in self._more.items():
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                trained = tensor.requires_grad
                layer.register_parameter(name, nn.Parameter(copy, requires_grad=trained))
            else:
                layer.register_buffer(name, copy)
        return layer

    def release(self) -> None:
        self._more.clear()
        self._builder.release()


def with_unused_state(module: nn.Module, pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces, of which the last holds what the module saves and no piece has."""
    saved = module.state_dict(keep_vars=True)
    first = first_names(module)
    held = {first[name] for piece in pieces for name in piece.original.values()}
    names = dict.fromkeys(first[name] for name in saved if name in first)
    missing = {name: saved[name] for name in names if name not in held and name in saved}
    if not missing:
        return list(pieces)
    more = {f"unused_{name.replace('.', '_')}": name for name in missing}
    last = replace(
        pieces[-1],
        builder=_Holding(pieces[-1].builder, {own: missing[name] for own, name in more.items()}),
        tensors={**pieces[-1].tensors, **{own: missing[name] for own, name in more.items()}},
        original={**pieces[-1].original, **more},
        same_as="",
    )
    return [*pieces[:-1], last]
