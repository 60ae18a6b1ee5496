"""The shards of parameters that FSDP2 keeps on one rank, and what updates them.

FSDP2 registers a `DTensor` in place of every parameter that it shards. What updates the weights
gets plain parameters instead, which share the memory of this rank's shards: any optimizer whose
update of a row depends on that row alone then makes the update of the whole parameter.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from hpc_lpm.activation import Activation

Places = list[tuple[nn.Module, str]]
"""The modules that hold a parameter, each with the parameter's name there."""


class Shards:
    """The parameters of all layers, which FSDP2 shards over the ranks of a mesh.

    What it cannot shard stays whole on every rank: parameters without dimensions or elements, of a
    complex type, of another type than most of their layer's, and those that do not lie in memory
    as usual. Those of `whole` do too.

    Args:
        layers: all layers, by their index in the model.
        whole: parameters that shall stay whole.
        mesh: the ranks, in one dimension.
        as_module: returns a module that calls these modules in place of layers.

    Attributes:
        root: the module to train, under which FSDP2 gathers one layer after the other.
        scored: the module to evaluate, which leaves no trace in what FSDP2 knows of passes; to be
            run once `root` has been.
        units: the modules that FSDP2 gathers, in the order of the layers.
        parameters: what takes the place of every parameter in optimizers: this rank's shard of it,
            or the parameter itself where that stays whole.
    """

    def __init__(
        self,
        layers: Mapping[int, nn.Module],
        whole: Iterable[nn.Parameter],
        mesh: DeviceMesh,
        as_module: Callable[[Mapping[int, nn.Module]], nn.Module],
    ) -> None:
        self._mesh = mesh
        places = _places(layers.values())
        kept = {*whole}
        for layer in layers.values():
            kept |= _not_sharded(list(layer.parameters()))
        units: dict[int, FSDPModule] = {}
        for index, layer in layers.items():
            if not kept.issuperset(layer.parameters()):
                unit = _Unit(layer, self._watch_gradients)
                units[index] = fully_shard(unit, mesh=mesh, ignored_params=kept)
        self.units = list(units.values())
        called = {index: unit for index, unit in units.items() if isinstance(unit, nn.Module)}
        self.root = as_module(called)
        self.scored = as_module({index: _Scored(unit) for index, unit in units.items()})
        self._engine = fully_shard(self.root, mesh=mesh, ignored_params=kept)
        if hasattr(self._engine, "set_reduce_scatter_unused_params"):
            # Ranks that reduce different parameters would end each other; older releases have none.
            self._engine.set_reduce_scatter_unused_params(True)
        self.parameters: dict[nn.Parameter, nn.Parameter] = {}
        self._sharded: dict[nn.Parameter, tuple[DTensor, Places]] = {}
        self._used: set[tuple[nn.Module, str]] = set()
        for parameter, found in places.items():
            registered = getattr(*found[0])
            shard = parameter
            if isinstance(registered, DTensor):
                local = registered.to_local().detach()
                shard = nn.Parameter(local, requires_grad=parameter.requires_grad)
                self._sharded[shard] = registered, found
            self.parameters[parameter] = shard

    def bytes_gathered(self, *, learning: bool = False) -> int:
        """Return the bytes of all that is sharded, or learns too, with the padding of rows."""
        ranks, total = self._mesh.size(), 0
        for shard, (registered, _) in self._sharded.items():
            if shard.requires_grad or not learning:
                rows, *others = registered.shape
                elements = -(-rows // ranks) * ranks * math.prod(others)
                total += elements * registered.element_size()
        return total

    def bytes_of(self, parameter: nn.Parameter) -> int:
        """Return the bytes of the whole parameter that this one takes the place of."""
        found = self._sharded.get(parameter)
        whole: Tensor = parameter if found is None else found[0]
        return whole.numel() * whole.element_size()

    def __contains__(self, parameter: nn.Parameter) -> bool:
        """Tell if what takes the place of a parameter is a shard of it."""
        return parameter in self._sharded

    def average_after_backward(self, averages: bool) -> None:
        """Say if FSDP2 is to average gradients in the next backward pass, or to add them up."""
        self._engine.set_requires_gradient_sync(averages)

    def take_gradients(self) -> list[nn.Parameter]:
        """Move the gradients that FSDP2 has reduced to the shards.

        Returns:
            The shards that learn, but of which no pass on this rank has used the parameter.
        """
        missing = []
        for shard, (registered, places) in self._sharded.items():
            if isinstance(registered.grad, DTensor):
                shard.grad = registered.grad.to_local()
                registered.grad = None
            if shard.requires_grad and self._used.isdisjoint(places):
                missing.append(shard)
        self._used.clear()
        return missing

    def _watch_gradients(self, layer: nn.Module) -> None:
        """Notice which of a layer's gathered parameters have gradients in passes from now on."""
        for parameter, places in _places([layer]).items():
            if parameter.requires_grad:

                def note(_: Tensor, place: tuple[nn.Module, str] = places[0]) -> None:
                    self._used.add(place)

                parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]

    def pass_by(self) -> None:
        """Take part in the gathering for a pass through `scored` without running layers."""
        for unit in self.units:
            unit.unshard()
            unit.reshard()

    @contextmanager
    def whole_layers(self) -> Iterator[dict[nn.Parameter, nn.Parameter]]:
        """Let the layers hold whole parameters, which the ranks gather (collective).

        What has become of their values and gradients is that of the shards afterwards.

        Yields:
            The whole parameters by their shards.
        """
        gathered: dict[nn.Parameter, nn.Parameter] = {}
        with torch.no_grad():
            for shard, (registered, places) in self._sharded.items():
                whole = nn.Parameter(registered.full_tensor(), shard.requires_grad)
                gathered[shard] = whole
                _register(whole, places)
        try:
            yield gathered
        finally:
            with torch.no_grad():
                for shard, whole in gathered.items():
                    registered, places = self._sharded[shard]
                    _register(registered, places)
                    shard.copy_(self._own_rows(whole))
                    if whole.grad is not None:
                        shard.grad = self._own_rows(whole.grad).clone()

    @contextmanager
    def whole(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Let an optimizer too hold all that it remembers of whole parameters (collective)."""
        with self.whole_layers() as gathered:
            exchange(optimizer, gathered, self._gathered)
            try:
                yield
            finally:
                shards = {whole: shard for shard, whole in gathered.items()}
                exchange(optimizer, shards, self._divided)

    def own_rows(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer of whole parameters, whose layers are sharded now, hold shards."""
        exchange(optimizer, self.parameters, self._divided)

    def _gathered(self, shard: Tensor, whole: Tensor, remembered: Tensor) -> Tensor:
        if remembered.dim() == 0:
            return remembered
        placed = DTensor.from_local(
            remembered,
            self._mesh,
            [Shard(0)],
            run_check=False,
            shape=whole.shape,
            stride=whole.stride(),
        )
        return placed.full_tensor()

    def _divided(self, whole: Tensor, shard: Tensor, remembered: Tensor) -> Tensor:
        if whole is shard or remembered.dim() == 0:
            return remembered
        return self._own_rows(remembered).clone()

    def _own_rows(self, whole: Tensor) -> Tensor:
        ranks, rank = self._mesh.size(), self._mesh.get_local_rank()
        rows = -(-len(whole) // ranks)
        return whole[rank * rows : (rank + 1) * rows]


class _Unit(nn.Module):
    """A layer within a module of its own, so that a call of the layer alone gathers nothing.

    `prepare` is called with the layer in its first pass with a graph, once it has been gathered.
    """

    def __init__(self, layer: nn.Module, prepare: Callable[[nn.Module], None]) -> None:
        super().__init__()
        self.layer = layer
        self._prepare: Callable[[nn.Module], None] | None = prepare

    def forward(self, activation: Activation) -> Activation:
        if self._prepare is not None and torch.is_grad_enabled():
            # FSDP2 gathers into the same parameters every time.
            self._prepare(self.layer)
            self._prepare = None
        found: Activation = self.layer(activation)
        return found


class _Scored(nn.Module):
    """A layer that is gathered for a pass without a graph.

    FSDP2's own passes count: a backward pass would gather for those that have none.
    """

    def __init__(self, unit: FSDPModule) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, activation: Activation) -> Activation:
        self.unit.unshard()
        try:
            unit: Any = self.unit
            found: Activation = unit.layer(activation)
            return found
        finally:
            self.unit.reshard()


def exchange(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[nn.Parameter, nn.Parameter],
    converted: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    """Let other parameters take the place of those that an optimizer updates.

    Args:
        optimizer: the optimizer.
        parameters: the new ones by the old ones; all others stay.
        converted: returns what it remembers of a new parameter, given the old one, the new one, and
            a tensor that it remembers of the old one.
    """
    for group in optimizer.param_groups:
        group["params"] = [parameters.get(old, old) for old in group["params"]]
    for old, new in parameters.items():
        if old in optimizer.state:
            optimizer.state[new] = {
                name: converted(old, new, value) if isinstance(value, Tensor) else value
                for name, value in optimizer.state.pop(old).items()
            }


def _places(layers: Iterable[nn.Module]) -> dict[nn.Parameter, Places]:
    found: dict[nn.Parameter, Places] = {}
    for layer in layers:
        for module in layer.modules():
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                found.setdefault(parameter, []).append((module, name))
    return found


def _register(parameter: Tensor, places: Places) -> None:
    for module, name in places:
        # Not straight into the module's dictionary: recurrent layers keep lists of their own.
        setattr(module, name, parameter)


def _not_sharded(parameters: list[nn.Parameter]) -> set[nn.Parameter]:
    """Return the parameters of a layer that FSDP2 cannot shard with its others."""
    able = [p for p in parameters if p.dim() and p.numel() and p.is_contiguous()]
    able = [parameter for parameter in able if parameter.is_floating_point()]
    elements: Counter[torch.dtype] = Counter()
    for parameter in able:
        elements[parameter.dtype] += parameter.numel()
    most = max(elements, key=lambda kind: elements[kind], default=None)
    return set(parameters) - {parameter for parameter in able if parameter.dtype == most}
