"""Starting a model from weights in a safetensors file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hpc_lpm.activation import describe_tensors
from hpc_lpm.data.locations import require_file
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.state_names import is_captured, outside_name

_NAMED_AT_MOST = 3
_OF_LAYER = re.compile(r"layer\.([0-9]{1,9})\.(.+)")
_BESIDE = "optimizer."
"""What the names of all other tensors of a checkpoint begin with."""


def load_initial_weights(path: Path, model: LayeredModel, layers: Mapping[int, nn.Module]) -> None:
    """Load a file's weights into layers that have been built, by their index in the model.

    The file has the weights of the whole model under the names of the user's own module, as its
    `state_dict` or `hpc-lpm export` writes them, or those of a checkpoint of `hpc-lpm train`. Of
    several names of one tensor it needs one; copies of tied parameters take the owner's values.

    Raises:
        InputError: if the file cannot be read, or tensors are missing, superfluous or of another
            shape or type.
    """
    require_file(path, "--init-from")
    try:
        with safe_open(path, framework="pt") as opened:
            _Loading(path, model, opened).into(layers)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"--init-from {path} cannot be read ({error}): name a safetensors file, such as one "
            "that `hpc-lpm export` wrote."
        ) from None


class _Loading:
    """One file that is loaded into one model."""

    def __init__(self, path: Path, model: LayeredModel, opened: Any) -> None:
        self._path = path
        self._model = model
        self._opened = opened
        self._names = set(opened.keys())
        own = {name for layer in model.layers for name in layer.original.values()}
        self._outside = own | set(model.aliases)
        self._checkpoint = not self._names <= self._outside and all(
            _OF_LAYER.match(name) or name.startswith(_BESIDE) for name in self._names
        )
        self._owner_of = {
            (tie.copy_layer, tie.copy_parameter): (tie.owner_layer, tie.owner_parameter)
            for tie in model.ties
        }
        self._aliases: dict[str, list[str]] = {}
        for alias, name in model.aliases.items():
            self._aliases.setdefault(name, []).append(alias)

    def into(self, layers: Mapping[int, nn.Module]) -> None:
        missing, misfits, found = [], [], []
        for index, layer in layers.items():
            saved = layer.state_dict().keys()
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                names = self._names_of(index, name)
                here = next((each for each in names if each in self._names), None)
                if here is None:
                    missing += names[:1] if name in saved else []
                    continue
                value = self._opened.get_tensor(here)
                if (value.shape, _kind(value)) != (tensor.shape, _kind(tensor)):
                    needs = describe_tensors([tensor])
                    misfits.append(f"{here} ({describe_tensors([value])} instead of {needs})")
                found.append((tensor, value))
        self._refuse("lacks", missing)
        self._refuse("has the wrong shape or type for", misfits)
        self._refuse("has tensors that the model does not have:", self._superfluous(layers))
        with torch.no_grad():
            for tensor, value in found:
                tensor.copy_(value)

    def _names_of(self, index: int, name: str) -> list[str]:
        """Return the names that a tensor may have in the file, the usual one first."""
        while (index, name) in self._owner_of:
            index, name = self._owner_of[index, name]
        if self._checkpoint:
            return [f"layer.{index}.{name}"]
        outside = outside_name(self._model, index, name)
        return [] if outside is None else [outside, *self._aliases.get(outside, ())]

    def _superfluous(self, layers: Mapping[int, nn.Module]) -> list[str]:
        """Return the file's tensors that no layer has; of layers elsewhere only the names count."""
        model = self._model
        if self._checkpoint:
            found = [match for match in map(_OF_LAYER.match, sorted(self._names)) if match]
            return [match[0] for match in found if not self._has(int(match[1]), match[2], layers)]
        if is_captured(model):
            return sorted(self._names - self._outside)
        return sorted(name for name in self._names if not self._belongs(name, layers))

    def _belongs(self, name: str, layers: Mapping[int, nn.Module]) -> bool:
        return any(
            name.startswith(f"{layer.name}.")
            and self._has(index, name.removeprefix(f"{layer.name}."), layers)
            for index, layer in enumerate(self._model.layers)
        )

    def _has(self, index: int, name: str, layers: Mapping[int, nn.Module]) -> bool:
        """Tell if a layer has a tensor of that name, or may have, since it is not built here."""
        if index not in layers:
            return index < len(self._model.layers)
        built = layers[index]
        tensors = [*built.named_parameters(), *built.named_buffers()]
        return name in {own for own, _ in tensors}

    def _refuse(self, what: str, names: list[str]) -> None:
        if names:
            more = len(names) - _NAMED_AT_MOST
            shown = ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
            raise InputError(
                f"--init-from {self._path} {what} {shown} of model {self._model.name}: give the "
                "weights of this very model, all in one file, such as `hpc-lpm export` writes."
            )


def _kind(tensor: Tensor) -> str:
    """Return what must agree of two types: values of another precision may be loaded."""
    if tensor.is_complex():
        return "complex"
    return "floating" if tensor.is_floating_point() else str(tensor.dtype)
