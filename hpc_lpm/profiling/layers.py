"""Profiling of every layer of a model for one micro-batch."""

from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.profile import LayerProfile
from hpc_lpm.profiling.chain import DetachedChain
from hpc_lpm.profiling.timer import timer_for


def profile_model(
    model: LayeredModel,
    inputs: Tensor,
    targets: Tensor,
    *,
    repeats: int = 10,
    device: torch.device | str = "cpu",
    seed: int = 0,
    compute_format: ComputeFormat = PLAIN,
) -> tuple[LayerProfile, ...]:
    """Measure each layer of `model` on one micro-batch.

    `inputs` and `targets` are what `Split` returns for the micro-batch. Times are medians over
    `repeats` sweeps after two sweeps to warm up. A sweep runs the forward passes of all layers and
    then their backward passes, each timed on its own, so that caches are as cold as in training.
    The first layer's backward pass does not compute a gradient of the inputs, the others' do. The
    loss is part of the last layer. Activation bytes come from `measure_activation_bytes`; output
    bytes are the sum over all tensors that cross, of whatever type.

    Layers are built anew from `model`; the global random state is left as it was.

    Raises:
        InputError: if a layer fails on what the layer before returns.
    """
    where = torch.device(device)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        chain = DetachedChain(model, inputs, targets, where, seed, compute_format)
        activation_bytes = measure_activation_bytes(chain)
        output_bytes = [chain.output_bytes(index) for index in range(len(chain))]
        for index in reversed(range(len(chain))):
            chain.backward(index)
        _timed_sweep(chain, where)
        sweeps = [_timed_sweep(chain, where) for _ in range(repeats)]
    return tuple(
        LayerProfile(
            name=model.layers[index].name,
            forward_seconds=median(forward[index] for forward, _ in sweeps),
            backward_seconds=median(backward[index] for _, backward in sweeps),
            output_bytes=output_bytes[index],
            parameter_bytes=sum(parameter.nbytes for parameter in layer.parameters()),
            activation_bytes=activation_bytes[index],
        )
        for index, layer in enumerate(chain.layers)
    )


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
