"""What crosses the boundary between two stages: tensors, and the structure that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, Structure, repeated_dimensions, taken_apart
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.memory_order import is_dense, one_slice, with_strides


@dataclass(frozen=True)
class TensorSpec:
    """Shape, type and memory layout of one tensor that crosses.

    `strides` are the layout of a dense tensor; None stands for a contiguous one. A layer may return
    a tensor with another layout, which is then copied into this one. Along the dimensions in
    `repeats` one slice stands for all, as in an expanded tensor, and only that slice crosses. If
    `requires_gradient`, the tensor's gradient crosses in the other direction, laid out as
    `gradient` says, or like the tensor if this is None. In which order sums run later depends on
    the layouts.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...] | None = field(default=None, compare=False)
    repeats: tuple[int, ...] = ()
    requires_gradient: bool = field(default=False, compare=False)
    gradient: "TensorSpec | None" = field(default=None, compare=False)

    @staticmethod
    def of(tensor: Tensor) -> "TensorSpec":
        """Describe a tensor; one with gaps or overlaps in memory will cross as a contiguous one."""
        repeats = repeated_dimensions(tensor)
        slices = one_slice(tensor, repeats)
        strides = slices.stride() if is_dense(slices) else None
        return TensorSpec(tuple(tensor.shape), tensor.dtype, strides, repeats, tensor.requires_grad)

    def crossing(self) -> "TensorSpec":
        """Describe what crosses: the tensor itself, or the slice that stands for all of it."""
        if not self.repeats:
            return self
        shape = tuple(1 if d in self.repeats else size for d, size in enumerate(self.shape))
        return TensorSpec(shape, self.dtype, self.strides)

    def arrived(self, crossed: Tensor) -> Tensor:
        """Return the tensor that what has crossed stands for."""
        return crossed.expand(self.shape) if self.repeats else crossed

    def empty(self, device: torch.device | str = "cpu", *, pin_memory: bool = False) -> Tensor:
        """Return an uninitialised tensor, by default in ordinary host memory."""
        if self.strides is None:
            return torch.empty(self.shape, dtype=self.dtype, device=device, pin_memory=pin_memory)
        return torch.empty_strided(
            self.shape, self.strides, dtype=self.dtype, device=device, pin_memory=pin_memory
        )

    def ones(self, device: torch.device) -> Tensor:
        """Return such a tensor in which all is one, as it would arrive."""
        return self.arrived(self.crossing().empty(device).fill_(1))

    def arranged(self, tensor: Tensor) -> Tensor:
        """Return what crosses of a tensor, in this memory layout, copied only if it has another.

        Raises:
            BoundaryError: if one slice was to stand for all of the tensor, and does not.
        """
        if not set(self.repeats) <= set(repeated_dimensions(tensor)):
            raise BoundaryError(
                f"a tensor {self} was to be the same along its dimensions {self.repeats}, as it "
                "was in the rehearsal before training: give --boundary-shapes sent"
            )
        held = one_slice(tensor.detach(), self.repeats)
        # Conjugated and negated views are promises to compute, which memory does not show.
        held = held.resolve_conj().resolve_neg()
        return held.contiguous() if self.strides is None else with_strides(held, self.strides)

    def of_gradient(self) -> "TensorSpec":
        """Describe the tensor's gradient."""
        if self.gradient is not None:
            return self.gradient
        # Where it is not known otherwise, a gradient has a value of its own everywhere.
        return TensorSpec(self.shape, self.dtype, None if self.repeats else self.strides)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


_NO_TENSOR = TensorSpec((1,), torch.uint8)
LOSS = TensorSpec((1,), torch.float64)
"""The mean loss of a step, which goes back with the gradients of its last micro-batch."""

MessagePart = Tensor | TensorSpec
"""A part of a message: a tensor, or the spec of one where there is none to send."""


@dataclass(frozen=True)
class BoundarySpec:
    """The tensors that cross for one micro-batch, and the structure that holds them."""

    tensors: tuple[TensorSpec, ...]
    structure: Structure

    @staticmethod
    def of(activation: Activation) -> "BoundarySpec":
        """Describe an activation."""
        tensors, structure = taken_apart(activation)
        return BoundarySpec(tuple(TensorSpec.of(tensor) for tensor in tensors), structure)

    def __str__(self) -> str:
        tensors = ", ".join(str(spec) for spec in self.tensors)
        if self.structure.is_lone_tensor:
            return tensors
        return f"({tensors}) in {self.structure}"

    def messages(self) -> tuple[TensorSpec, ...]:
        """Return the parts of the message that carries the tensors; one if there are none."""
        return tuple(spec.crossing() for spec in self.tensors) or (_NO_TENSOR,)

    def gradient_messages(self) -> tuple[TensorSpec, ...]:
        """Return the parts of the message that carries the gradients."""
        return tuple(spec.crossing() for spec in self.gradients())

    def gradients(self) -> tuple[TensorSpec, ...]:
        """Return what crosses backwards: the gradient of each tensor that requires one."""
        return tuple(spec.of_gradient() for spec in self.tensors if spec.requires_gradient)

    def with_gradients(self, found: Sequence[TensorSpec | None]) -> "BoundarySpec":
        """Return this spec with the memory layouts of gradients that were found.

        `found` has a spec, or None where there was no gradient, for each tensor that requires one.
        """
        remaining = iter(found)
        tensors = []
        for spec in self.tensors:
            gradient = next(remaining) if spec.requires_gradient else None
            tensors.append(replace(spec, gradient=gradient))
        return replace(self, tensors=tuple(tensors))

    def arranged(self, activation: Activation) -> tuple[Tensor, ...]:
        """Return the tensors of an activation in their agreed memory layouts."""
        crossing = zip(self.tensors, taken_apart(activation)[0], strict=True)
        return tuple(spec.arranged(tensor) for spec, tensor in crossing)

    def arranged_gradients(self, gradients: Sequence[Tensor | None]) -> tuple[MessagePart, ...]:
        """Return the gradients in their agreed memory layouts.

        A spec stands for a tensor that has no gradient.
        """
        crossing = zip(self.gradients(), gradients, strict=True)
        return tuple(
            spec.crossing() if gradient is None else spec.arranged(gradient)
            for spec, gradient in crossing
        )

    def activation(self, tensors: Sequence[Tensor], *, training: bool) -> Activation:
        """Return the activation that received tensors make up, as leaves of a graph.

        In training those that require a gradient are marked so.
        """
        arrived = [
            spec.arrived(tensor).requires_grad_(training and spec.requires_gradient)
            for spec, tensor in zip(self.tensors, tensors, strict=True)
        ]
        return self.structure.fill(arrived)


@dataclass
class Boundary:
    """What crosses between two stages, by the kind of pass and its number of samples.

    If it `varies` between micro-batches of the same size, each message says what it consists of.
    """

    specs: dict[tuple[bool, int], BoundarySpec] = field(default_factory=dict)
    varies: bool = False

    def add(self, spec: BoundarySpec | None, *, training: bool, samples: int) -> None:
        """Take note of what has crossed in a pass, None if the pipeline ends here."""
        if spec is None:
            return
        key = training, samples
        before = self.specs.setdefault(key, spec)
        if before != spec:
            self.varies = True
            return
        # A tensor may need a gradient with some samples only.
        self.specs[key] = replace(
            before,
            tensors=tuple(
                replace(one, requires_gradient=one.requires_gradient or other.requires_gradient)
                for one, other in zip(before.tensors, spec.tensors, strict=True)
            ),
        )

    def agreed(self, *, training: bool, samples: int) -> BoundarySpec | None:
        """Return what crosses for a micro-batch, None if only its message tells."""
        return None if self.varies else self.specs[training, samples]


@dataclass(frozen=True)
class StageBoundaries:
    """What enters and what leaves one stage; at the ends of the pipeline nothing does."""

    incoming: Boundary
    outgoing: Boundary
