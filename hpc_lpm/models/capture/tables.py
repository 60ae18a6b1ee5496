"""Values that depend on the batch size alone, such as masks and rotary tables, computed once."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Self

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from hpc_lpm.models.capture.flow import is_batch_size

_MOST_KEPT = 8


class Tables:
    """The tables of a captured module in one mode, shared by all layers of a process.

    Args:
        nodes: the operations that make them, in order.
        given: the constants and buffers that they are made of.
        writers: the operations that write into a value after it is made.
    """

    def __init__(
        self,
        nodes: list[Node],
        given: Mapping[Node, Tensor],
        writers: Mapping[Node, tuple[Node, ...]],
    ) -> None:
        self._nodes = nodes
        self._writers = dict(writers)
        self._given = dict(given)
        self._kept: dict[tuple[Any, ...], dict[Any, Any]] = {}
        self._digests: dict[Node, str] = {}

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def at(self, batch: int | None, device: torch.device) -> dict[Any, Any]:
        """Return what is computed for a batch size, a device and the present autocast."""
        kind = device.type
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        key = (batch, device, torch.get_autocast_dtype(kind) if mixed else None)
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[key] = {}
        return kept

    def compute(
        self, wanted: tuple[Node, ...], batch: int | None, device: torch.device
    ) -> tuple[Any, ...]:
        """Compute values; each is kept, and computed once for a batch size and device."""
        kept = self.at(batch, device)
        if all(node in kept for node in wanted):
            return tuple(kept[node] for node in wanted)
        needed = self._needed(wanted)
        values: dict[Node, Any] = {}
        with torch.inference_mode(False), torch.no_grad():
            for node, tensor in self._given.items():
                if node in needed:
                    # A copy, since a table may be written into while it is made.
                    values[node] = tensor.detach().clone().to(device)
            for node in self._nodes:
                if node in needed:
                    values[node] = _run(node, values, batch, device)
        for node in wanted:
            kept[node] = values[node]
        return tuple(kept[node] for node in wanted)

    def digest(self, node: Node) -> str:
        """Return a text that is equal for values that are computed alike."""
        if node not in self._digests:
            if node in self._given:
                tensor = self._given[node].detach().contiguous()
                content = tensor.flatten().view(torch.uint8).numpy().tobytes()
                what = f"{tensor.dtype}{tuple(tensor.shape)}".encode() + content
            elif is_batch_size(node):
                what = b"batch"
            else:
                described = pytree.tree_map_only(Node, self.digest, (node.args, dict(node.kwargs)))
                writers = [str(writer.target) for writer in self._writers.get(node, ())]
                what = f"{node.target}{described}{writers}".encode()
            self._digests[node] = blake2b(what, digest_size=8).hexdigest()
        return self._digests[node]

    def _needed(self, wanted: tuple[Node, ...]) -> set[Node]:
        """Return what values are made of, with everything that writes into it."""
        needed: set[Node] = set()
        remaining = list(wanted)
        while remaining:
            node = remaining.pop()
            if node in needed:
                continue
            needed.add(node)
            remaining.extend(node.all_input_nodes)
            remaining.extend(self._writers.get(node, ()))
        return needed


def _run(node: Node, values: dict[Node, Any], batch: int | None, device: torch.device) -> Any:
    if is_batch_size(node):
        return batch

    def given(item: Any) -> Any:
        if isinstance(item, Node):
            return values[item]
        return device if isinstance(item, torch.device) else item

    arguments, keywords = pytree.tree_map(given, (node.args, dict(node.kwargs)))
    return node.target(*arguments, **keywords)  # type: ignore[operator]


class LayerTables:
    """The tables that one layer needs."""

    def __init__(self, tables: Tables, wanted: tuple[Node, ...]) -> None:
        self._tables = tables
        self._wanted = wanted

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def values(self, batch: int | None, device: torch.device) -> tuple[Any, ...]:
        """Return the values for a batch size, on a device."""
        kept = self._tables.at(batch, device)
        found: tuple[Any, ...] | None = kept.get(self)
        if found is None:
            found = kept[self] = self._tables.compute(self._wanted, batch, device)
        return found
