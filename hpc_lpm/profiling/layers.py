"""Profiling of every layer of a model for one micro-batch."""

from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.profile import LayerProfile
from hpc_lpm.profiling.activations import measure_activation_bytes
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
    `repeats` sweeps after two for warming up. A sweep runs the forward passes of all layers and
    then their backward passes, each timed on its own: caches are as cold as in training. The first
    layer's backward pass does not compute a gradient of the inputs, the others' do. The loss is
    part of the last layer. Activation bytes are those of `measure_activation_bytes`, output bytes
    the sum over all tensors that cross, be they float or not.

    Layers are built afresh from `model`; the global random state is left as it was.

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
