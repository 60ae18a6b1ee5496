"""Emulated devices: layers that sleep for the profiled time and send messages of the real size.

A sleeping rank needs no core, so that far more ranks can be raced than there are cores. Schedule,
messages, weights and gradients are real; only the arithmetic is replaced.
"""

import time
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape, require_images
from hpc_lpm.models.layered import Layer, LayeredModel, ModuleEnd
from hpc_lpm.profile_formats.read import read_profile
from hpc_lpm.split_backward.deferred_work import defer, is_put_off

_SPIN_SECONDS = 0.2e-3
_BYTES_PER_ELEMENT = 4
_INITIAL_SPREAD = 0.1


def replay(shape: DataShape, path: Path) -> LayeredModel:
    """Build one emulated layer for each layer of the profile at `path`, in either format.

    In training each pass of a layer lasts as long as profiled, in proportion to the samples of the
    micro-batch; in evaluation it takes no time. The halves of backward passes that run apart take
    what `LayerProfile.halves_seconds` tells of them. Layers return [n, width] float32, where
    `width` is chosen so that the profile's micro-batch gives its `output_bytes`, rounded to at
    least one whole element per sample; the last layer returns logits [n, classes].

    Raises:
        InputError: if the data are not images, or the profile is missing or broken.
    """
    require_images("replay", shape)
    profile = read_profile(path)
    last = len(profile.layers) - 1
    chain = []
    for index, layer in enumerate(profile.layers):
        elements = layer.output_bytes / (_BYTES_PER_ELEMENT * profile.micro_batch)
        width = shape.classes if index == last else max(1, round(elements))
        first, second = layer.halves_seconds(first_stage=False)
        build = partial(
            EmulatedLayer,
            width,
            forward_seconds=layer.forward_seconds / profile.micro_batch,
            backward_seconds=layer.backward_seconds / profile.micro_batch,
            halves_seconds=(first / profile.micro_batch, second / profile.micro_batch),
            stands_for=layer.fingerprint,
        )
        ends = tuple(ModuleEnd(end.path, end.type) for end in layer.ends)
        chain.append(Layer(layer.name, build, ends, cut_after=layer.cut_after))
    return LayeredModel("replay", tuple(chain))


class EmulatedLayer(nn.Module):
    """tanh(weight * mean of the sample) times a ramp with mean 1: [n, ...] to [n, width] float32.

    The result depends on every element that arrives and on the layer's one weight, so that the
    trained weights tell bit for bit whether the messages were right. The ramp makes the classes
    differ. `forward_seconds` and `backward_seconds` are the times of one sample, and so are
    `halves_seconds` of the two halves of a backward pass where they run apart. `stands_for` is the
    fingerprint of the layer that is emulated, None if it is not known.
    """

    def __init__(
        self,
        width: int,
        *,
        forward_seconds: float,
        backward_seconds: float,
        halves_seconds: tuple[float, float],
        stands_for: str | None = None,
    ) -> None:
        super().__init__()
        self.stands_for = stands_for
        self.weight = nn.Parameter(1.0 + _INITIAL_SPREAD * torch.randn(1))
        self._width = width
        self._forward_seconds = forward_seconds
        self._backward_seconds = backward_seconds
        self._halves_seconds = halves_seconds

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute, and in training take the time of `len(inputs)` samples."""
        start_seconds = time.perf_counter()
        samples = len(inputs) if self.training else 0
        outputs: Tensor = _Emulated.apply(  # type: ignore[no-untyped-call]
            inputs,
            self.weight,
            self._width,
            start_seconds + samples * self._forward_seconds,
            samples * self._backward_seconds,
            *(samples * seconds for seconds in self._halves_seconds),
        )
        return outputs


class _Emulated(torch.autograd.Function):
    """A layer's arithmetic with a backward pass of our own, so that each pass can be timed."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        width: int,
        forward_end_seconds: float,
        backward_seconds: float,
        first_half_seconds: float,
        second_half_seconds: float,
    ) -> Tensor:
        means = inputs.flatten(1).mean(dim=1, keepdim=True)
        activations = torch.tanh(weight * means)
        ctx.save_for_backward(weight, means, activations)
        ctx.input_shape = inputs.shape
        ctx.backward_seconds = backward_seconds
        ctx.halves_seconds = first_half_seconds, second_half_seconds
        outputs = activations * _ramp(width, inputs)
        sleep_until(forward_end_seconds)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first_seconds, second_seconds = ctx.backward_seconds, 0.0
        if is_put_off():
            first_seconds, second_seconds = ctx.halves_seconds
        first_end_seconds = time.perf_counter() + first_seconds
        weight, means, activations = ctx.saved_tensors
        (gradient,) = gradients
        activation_gradient = (gradient * _ramp(gradient.shape[1], gradient)).sum(
            dim=1, keepdim=True
        )
        product_gradient = activation_gradient * (1.0 - activations**2)
        weight_gradient = (product_gradient * means).sum().reshape(1)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            elements = prod(ctx.input_shape[1:])
            each = product_gradient * weight / elements
            # Of the real size in memory too: of an expanded tensor one slice would be sent.
            input_gradient = each.repeat(1, elements).reshape(ctx.input_shape)
        overrun_seconds = max(0.0, time.perf_counter() - first_end_seconds)
        sleep_until(first_end_seconds)
        if second_seconds:
            # The arithmetic may take longer than the first half was to take.
            defer(partial(_sleep, second_seconds - overrun_seconds))
        return input_gradient, weight_gradient, None, None, None, None, None


def _ramp(width: int, like: Tensor) -> Tensor:
    """Return [width] evenly rising positive values with mean 1."""
    return (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) * (2.0 / width)


def _sleep(seconds: float) -> None:
    sleep_until(time.perf_counter() + seconds)


def sleep_until(end_seconds: float) -> None:
    """Sleep until `time.perf_counter()` passes `end_seconds`.

    The operating system wakes a sleeper some 0.1 ms late, so the last 0.2 ms are spent spinning.
    """
    remaining = end_seconds - time.perf_counter() - _SPIN_SECONDS
    if remaining > 0:
        time.sleep(remaining)
    while time.perf_counter() < end_seconds:
        pass
