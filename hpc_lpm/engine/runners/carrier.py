"""Carries the bits of any tensors, and of their gradients, in the one tensor that an engine sends.

DeepSpeed sends contiguous floating-point tensors best. It runs backward once for each tensor of a
tuple, which takes almost twice the time, and neither it nor PyTorch can say that a tensor has no
gradient. So the
bytes of all tensors of a boundary are put into one tensor, the carrier, whose numbers mean nothing:
they are only ever copied.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.engine.pipeline.boundary import BoundarySpec, TensorSpec
from hpc_lpm.engine.pipeline.memory_order import flat_memory

_ALIGNMENT = 16
"""Bytes: the elements of a tensor of any type may start at a multiple of it."""
_SENT_AS_THEY_ARE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NOTHING = -2
"""As 16 bits, these are in every type above a part of a NaN that no arithmetic gives."""


class Carrier(ABC):
    """Puts the tensors of one boundary into a carrier and takes them out again.

    Attributes:
        shows_history: whether `with_history` can make a carrier whose history autograd follows.
    """

    shows_history = False

    def with_history(self, tensor: Tensor) -> Tensor:
        """Return a carrier of a lone tensor, made by operations that autograd follows."""
        raise NotImplementedError

    @abstractmethod
    def example(self) -> Tensor:
        """Return a carrier of the shape and type of all others."""

    @abstractmethod
    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a contiguous carrier of the tensors, without a history."""

    @abstractmethod
    def unpack(self, carrier: Tensor) -> list[Tensor]:
        """Return the tensors in a carrier, whose gradient will be a carrier of their gradients."""

    @abstractmethod
    def gradients(self, carrier: Tensor) -> list[Tensor | None]:
        """Return copies of the gradients in a carrier, None for what has none, for all tensors."""


def carrier_of(spec: BoundarySpec, device: torch.device) -> Carrier:
    """Return what carries the tensors of a boundary, on this device."""
    if spec.structure.is_lone_tensor:
        lone = _LoneCarrier(spec.tensors[0], device)
        if lone.suits():
            return lone
    return _PackedCarrier(spec, device)


def fill_missing_gradient(carrier: Tensor) -> None:
    """Give a carrier that has no gradient one that says so, for engines insist on sending it."""
    if carrier.grad is None:
        empty = torch.empty_like(carrier, memory_format=torch.contiguous_format)
        empty.view(torch.int16).fill_(_NOTHING)
        carrier.grad = empty


class _LoneCarrier(Carrier):
    """A lone floating-point tensor, which is its own carrier, its dimensions in memory order.

    Its gradient comes back in the same layout.
    """

    shows_history = True

    def __init__(self, spec: TensorSpec, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        dimensions = list(range(len(spec.shape)))
        strides = spec.strides
        if strides is not None:
            dimensions.sort(key=lambda dimension: -strides[dimension])
        self._order = dimensions
        self._back = [dimensions.index(dimension) for dimension in range(len(dimensions))]

    def suits(self) -> bool:
        """Tell if the tensor arrives exactly as it left."""
        spec = self._spec
        if spec.dtype not in _SENT_AS_THEY_ARE or not spec.shape or 0 in spec.shape:
            return False
        sent = torch.empty([spec.shape[dimension] for dimension in self._order], device="meta")
        arriving = sent.permute(self._back).stride()
        described = [spec, spec.of_gradient()] if spec.requires_gradient else [spec]
        if any(one.repeats for one in described):
            return False
        contiguous = torch.empty(spec.shape, device="meta").stride()
        return all((one.strides or contiguous) == arriving for one in described)

    def example(self) -> Tensor:
        shape = [self._spec.shape[dimension] for dimension in self._order]
        return torch.zeros(shape, dtype=self._spec.dtype, device=self._device)

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        return self._spec.arranged(tensors[0]).permute(self._order).contiguous()

    def with_history(self, tensor: Tensor) -> Tensor:
        return tensor.permute(self._order).contiguous()

    def unpack(self, carrier: Tensor) -> list[Tensor]:
        if not self._spec.requires_gradient:
            carrier = carrier.detach()
        # Not a view where there is a choice: a layer may change what it is given in place.
        in_order = self._order == self._back == sorted(self._order)
        return [carrier if in_order else carrier.permute(self._back)]

    def gradients(self, carrier: Tensor) -> list[Tensor | None]:
        if not self._spec.requires_gradient or _says_nothing(carrier):
            return [None]
        # A copy, for autograd may keep the memory of what it is given as a weight's gradient, and
        # the next gradient will be received into this memory.
        return [carrier.clone().permute(self._back)]


def _says_nothing(carrier: Tensor) -> bool:
    halves = carrier.detach().view(torch.int16).flatten()
    return int(halves[0]) == _NOTHING and bool((halves == _NOTHING).all())


class _PackedCarrier(Carrier):
    """Bytes of any tensors as float32 [elements], at the end a flag for each possible gradient."""

    def __init__(self, spec: BoundarySpec, device: torch.device) -> None:
        self._specs = spec.tensors
        self._device = device
        self._sizes = [prod(spec.shape) * spec.dtype.itemsize for spec in self._specs]
        spaces = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in self._sizes]
        *self._offsets, end = accumulate(spaces, initial=0)
        self._flags = end // torch.float32.itemsize
        # A carrier of nothing is sent as well, and needs an element for that.
        self._elements = max(1, self._flags + len(self._specs))

    def example(self) -> Tensor:
        return torch.zeros(self._elements, dtype=torch.float32, device=self._device)

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        carrier = torch.empty(self._elements, dtype=torch.float32, device=self._device)
        places = zip(self._specs, tensors, self._places(carrier), strict=True)
        for spec, tensor, place in places:
            _put(spec.arranged(tensor), place)
        return carrier

    def unpack(self, carrier: Tensor) -> list[Tensor]:
        return list(_Unpack.apply(carrier, self)) if self._specs else []  # type: ignore[no-untyped-call]

    def copies(self, carrier: Tensor) -> list[Tensor]:
        """Return the tensors in a carrier, without a history."""
        places = zip(self._specs, self._places(carrier), strict=True)
        return [self._copy(spec, place) for spec, place in places]

    def constants(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return those of the tensors that require no gradient."""
        described = zip(self._specs, tensors, strict=True)
        return [tensor for spec, tensor in described if not spec.requires_gradient]

    def pack_gradients(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Return a carrier of the gradients of all tensors, None for those without."""
        carrier = torch.empty(self._elements, dtype=torch.float32, device=self._device)
        places = zip(self._specs, gradients, self._places(carrier), strict=True)
        for spec, gradient, place in places:
            if gradient is not None:
                _put(spec.of_gradient().arranged(gradient), place)
        present = [float(gradient is not None) for gradient in gradients]
        carrier[self._flags :] = torch.tensor(present)
        return carrier

    def gradients(self, carrier: Tensor) -> list[Tensor | None]:
        flags = carrier.detach()[self._flags :].tolist()
        places = zip(self._specs, flags, self._places(carrier), strict=False)
        return [
            self._copy(spec.of_gradient(), place) if spec.requires_gradient and flag == 1 else None
            for spec, flag, place in places
        ]

    def _places(self, carrier: Tensor) -> list[Tensor]:
        memory = carrier.detach().view(torch.uint8)
        places = zip(self._offsets, self._sizes, strict=True)
        return [memory[offset : offset + size] for offset, size in places]

    def _copy(self, spec: TensorSpec, place: Tensor) -> Tensor:
        crossed = spec.crossing().empty(self._device)
        flat_memory(crossed).copy_(place[: crossed.nbytes])
        return spec.arrived(crossed)


def _put(tensor: Tensor, place: Tensor) -> None:
    memory = flat_memory(tensor)
    place[: len(memory)].copy_(memory)


class _Unpack(torch.autograd.Function):
    """Takes tensors out of a carrier; backwards, puts their gradients into one."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, packed: _PackedCarrier) -> tuple[Tensor, ...]:
        ctx.packed = packed
        ctx.set_materialize_grads(False)
        tensors = packed.copies(carrier)
        ctx.mark_non_differentiable(*packed.constants(tensors))
        return tuple(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None]:
        return ctx.packed.pack_gradients(gradients), None
