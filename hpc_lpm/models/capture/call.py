"""How a module is called with what the layer before it returned."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hpc_lpm.activation import taken_apart, tensors_of


@dataclass(frozen=True)
class Call:
    """An example of a module's input, and the way in which it is passed.

    `activation` is what the first layer will be given: it is passed as the one argument if it is
    `alone`, else a tuple holds the positional arguments and a dictionary the keyword arguments.
    """

    activation: Any
    alone: bool

    @classmethod
    def of_example(cls, example: object, module: nn.Module) -> "Call":
        """Return the call for a user's example: a tensor, a tuple or a dictionary of arguments."""
        if isinstance(example, Mapping):
            # In the order of the signature, in which torch.export arranges keywords as well.
            order = list(inspect.signature(module.forward).parameters)
            known = {name: example[name] for name in order if name in example}
            rest = {name: value for name, value in example.items() if name not in known}
            call = cls({**known, **rest}, alone=False)
        else:
            call = cls(example, alone=not isinstance(example, tuple))
        # A size of one means to torch.export that it is always one.
        return call if call.batch_size != 1 else replace(call, activation=call.with_samples([0, 0]))

    def arguments(self, activation: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments for an activation like the example."""
        if self.alone:
            return (activation,), {}
        if isinstance(activation, Mapping):
            return (), dict(activation)
        return tuple(activation), {}

    def run(self, module: nn.Module, activation: Any) -> Any:
        """Call the module with an activation like the example."""
        positional, keywords = self.arguments(activation)
        return module(*positional, **keywords)

    def paths(self) -> list[tuple[Any, ...]]:
        """Return the way to each leaf among the arguments, in the order of torch.export's inputs.

        A way is a list of indices and keys that lead from the activation to the leaf.
        """
        leaves, _ = pytree.tree_flatten_with_path(self.arguments(self.activation))
        skipped = 2 if self.alone else 1
        return [tuple(_step(key) for key in path[skipped:]) for path, _ in leaves]

    @property
    def batch_size(self) -> int | None:
        """The size of the first dimension of the example's first tensor, None without any."""
        return self.size_of(self.activation)

    @staticmethod
    def size_of(activation: Any) -> int | None:
        """Return the size of the first dimension of the first tensor, None without any."""
        return next((len(t) for t in tensors_of(activation) if t.dim() > 0), None)

    def batched(self, leaf: object) -> bool:
        """Tell if a leaf is a tensor whose first dimension is that of the samples."""
        return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == self.batch_size

    def with_samples(self, chosen: list[int]) -> Any:
        """Return an activation that holds the chosen samples of the example."""
        tensors, structure = taken_apart(self.activation)
        indices = torch.tensor(chosen)
        return structure.fill(
            [tensor[indices] if self.batched(tensor) else tensor for tensor in tensors]
        )


def _step(key: object) -> Any:
    if isinstance(key, pytree.SequenceKey):
        return key.idx
    if isinstance(key, pytree.MappingKey):
        return key.key
    return Attribute(key.name)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Attribute:
    """A step to a leaf through an attribute, as of a dataclass."""

    name: str
