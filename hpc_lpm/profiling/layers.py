"""Measure what each layer of a model costs for one micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.fingerprint import layer_fingerprint
from hpc_lpm.models.hidden_matrices import WeightRole, hidden_matrices, weight_roles
from hpc_lpm.models.layered import LayeredModel, ModuleEnd
from hpc_lpm.profile_file import LayerProfile, ProfiledEnd
from hpc_lpm.profiling.chain import DetachedChain
from hpc_lpm.profiling.repeats import everything, shorten
from hpc_lpm.profiling.timer import timer_for


@dataclass(frozen=True)
class _Facts:
    """What a layer is, whatever it costs."""

    parameter_bytes: int
    fingerprint: str
    ends: tuple[ProfiledEnd, ...]
    roles: tuple[WeightRole, ...]
    sizes_bytes: dict[str, int]

    @classmethod
    def of(cls, model: LayeredModel, index: int, module: nn.Module) -> "_Facts":
        layer = model.layers[index]
        ends = layer.ends or (ModuleEnd(layer.name, type(module).__name__),)
        return cls(
            sum(parameter.nbytes for parameter in module.parameters()),
            layer_fingerprint(layer.name, module),
            tuple(ProfiledEnd(path=end.path, type=end.type) for end in ends),
            tuple(weight_roles(model, index, module)),
            {name: parameter.nbytes for name, parameter in module.named_parameters()},
        )


@dataclass(frozen=True)
class _Measured:
    """What the layers of a chain cost: bytes, and seconds of the two passes in each sweep.

    `halves` are those of the halves of a backward pass; 0 where nothing is left for the second.
    """

    activation_bytes: list[int]
    output_bytes: list[int]
    sweeps: list[tuple[list[float], list[float]]]
    halves: list[tuple[list[float], list[float]]]


def profile_model(
    model: LayeredModel,
    inputs: Activation,
    targets: Activation,
    *,
    repeats: int = 10,
    device: torch.device | str = "cpu",
    seed: int = 0,
    compute_format: ComputeFormat = PLAIN,
) -> tuple[LayerProfile, ...]:
    """Measure each layer of `model` on one micro-batch.

    `inputs` and `targets` are what `Samples` return for the micro-batch. Times are medians over
    `repeats` sweeps after two sweeps to warm up. A sweep runs the forward passes of all layers and
    then their backward passes, each timed on its own, so that caches are as cold as in training.
    The first layer's backward pass does not compute a gradient of the inputs, the others' do. In
    half as many sweeps more, backward passes run in halves: `split_backward_seconds` is the time of
    both, and `weight_gradient_seconds` the second half's share in it, of the time of the whole
    pass. The loss is part of the last layer. Activation bytes come from `measure_activation_bytes`;
    output bytes are the sum over all tensors that cross, of whatever type.

    Of blocks that repeat (`Layer.same_as`) only as many are swept as `shorten` says, and all
    layers in one place of a block get the median over those that are.

    Layers are built anew from `model`; the global random state is left as it was.

    Raises:
        InputError: if a layer fails on what the layer before returns.
    """
    where = torch.device(device)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        facts: dict[int, _Facts] = {}

        def facts_of(index: int) -> _Facts:
            # One layer at a time, since all of them together may be more than a device holds.
            if index not in facts:
                facts[index] = _Facts.of(model, index, model.build_layer(index, seed))
            return facts[index]

        def measure(kept: Sequence[int]) -> _Measured:
            layers = tuple(model.layers[index] for index in kept)
            whole = len(kept) == len(model.layers)
            chosen = model if whole else replace(model, layers=layers, ties=())
            chain = DetachedChain(chosen, inputs, targets, where, seed, compute_format)
            for index, module in zip(kept, chain.layers, strict=True):
                facts[index] = _Facts.of(model, index, module)
            return _measured(chain, where, repeats)

        short = shorten(
            [layer.same_as for layer in model.layers],
            lambda index: facts_of(index).parameter_bytes,
        )
        try:
            found = measure(short.kept)
        except InputError:
            if len(short.kept) == len(model.layers):
                raise
            # Layers that are called the same may still be no substitutes for one another.
            short = everything(len(model.layers))
            found = measure(short.kept)
        known = [facts_of(index) for index in range(len(model.layers))]
    matrices = hidden_matrices(role for facts_of_layer in known for role in facts_of_layer.roles)
    at = {index: place for place, index in enumerate(short.kept)}

    def seconds(index: int, sweeps: Sequence[tuple[list[float], list[float]]], which: int) -> float:
        timed = [at[other] for other in short.timed_by[index]]
        return median(sweep[which][place] for sweep in sweeps for place in timed)

    def backward_seconds(index: int) -> dict[str, float]:
        whole = seconds(index, found.sweeps, 1)
        share, both = 1.0, whole
        if index:  # nobody waits for a gradient of the data
            first, second = (seconds(index, found.halves, half) for half in range(2))
            share = second / (first + second) if second else 0.0
            both = max(whole, first + second) if second else whole
        return {
            "backward_seconds": whole,
            "weight_gradient_seconds": share * whole,
            "split_backward_seconds": both,
        }

    return tuple(
        LayerProfile(
            name=layer.name,
            forward_seconds=seconds(index, found.sweeps, 0),
            **backward_seconds(index),
            output_bytes=found.output_bytes[at[short.sized_by[index]]],
            parameter_bytes=known[index].parameter_bytes,
            activation_bytes=found.activation_bytes[at[short.sized_by[index]]],
            matrix_parameter_bytes=sum(
                size for name, size in known[index].sizes_bytes.items() if (index, name) in matrices
            ),
            fingerprint=known[index].fingerprint,
            ends=known[index].ends,
            cut_after=layer.cut_after,
        )
        for index, layer in enumerate(model.layers)
    )


def _measured(chain: DetachedChain, device: torch.device, repeats: int) -> _Measured:
    activation_bytes = measure_activation_bytes(chain)
    output_bytes = [chain.output_bytes(index) for index in range(len(chain))]
    for index in reversed(range(len(chain))):
        chain.backward(index)
    _timed_sweep(chain, device)
    sweeps = [_timed_sweep(chain, device) for _ in range(repeats)]
    _timed_halves(chain, device)
    halves = [_timed_halves(chain, device) for _ in range((repeats + 1) // 2)]
    return _Measured(activation_bytes, output_bytes, sweeps, halves)


def measure_activation_bytes(chain: DetachedChain) -> list[int]:
    """Run one forward pass of the chain and return the bytes that each layer keeps for backward.

    What counts are the distinct storages that autograd saves, each in full and once, in the layer
    that saves it first. Parameters and buffers do not count, but the casts of parameters that mixed
    precision keeps for a micro-batch do. An output that the next layer saves although its producer
    does not (the input of a normalisation) therefore counts in the next layer, and the sum over the
    chain is what one micro-batch in flight occupies. Memory that a kernel needs only while it runs
    is not included.
    """
    # Held until the end, so that no address is freed and used again by another storage.
    kept: dict[int, torch.UntypedStorage] = {}
    layer_bytes = []
    for index in range(len(chain)):
        own = chain.own_storages(index)
        new_bytes = 0

        def keep(tensor: Tensor, own: set[int] = own) -> Tensor:
            nonlocal new_bytes
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in kept and address not in own:
                kept[address] = storage
                new_bytes += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            chain.forward(index)
        layer_bytes.append(new_bytes)
    return layer_bytes


def _timed_sweep(chain: DetachedChain, device: torch.device) -> tuple[list[float], list[float]]:
    """Return the seconds of each layer's forward and of its backward pass, both in layer order."""
    timer = timer_for(device)
    marks = [timer.mark()]
    for index in range(len(chain)):
        chain.forward(index)
        marks.append(timer.mark())
    for index in reversed(range(len(chain))):
        chain.backward(index)
        marks.append(timer.mark())
    seconds = [timer.seconds(start, stop) for start, stop in pairwise(marks)]
    return seconds[: len(chain)], seconds[len(chain) :][::-1]


def _timed_halves(chain: DetachedChain, device: torch.device) -> tuple[list[float], list[float]]:
    """Return the seconds of the halves of each layer's backward pass, both in layer order."""
    timer = timer_for(device)
    for index in range(len(chain)):
        chain.forward(index)
    marks, waited = [timer.mark()], []
    for index in reversed(range(len(chain))):
        chain.backward_input(index)
        marks.append(timer.mark())
        waited.append(chain.backward_weights())
        marks.append(timer.mark())
    seconds = [timer.seconds(start, stop) for start, stop in pairwise(marks)]
    second = [took if left else 0.0 for took, left in zip(seconds[1::2], waited, strict=True)]
    return seconds[::2][::-1], second[::-1]
