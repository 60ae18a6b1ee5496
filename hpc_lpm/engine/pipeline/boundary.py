"""The tensors that cross the boundary between two stages, found out before training."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.collectives import receive_object
from hpc_lpm.engine.faults import BoundaryError, Faults
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.pipeline.memory_order import is_dense, with_strides
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.models.activation import Activation
from hpc_lpm.models.layered import LayeredModel, as_tuple

_PROBE_TAG = 7


@dataclass(frozen=True)
class TensorSpec:
    """Shape, type and memory layout of one tensor that crosses.

    `strides` are the layout of a dense tensor; None stands for a contiguous one. A layer may return
    a tensor with another layout, which is then copied into this one.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...] | None = field(default=None, compare=False)

    @staticmethod
    def of(tensor: Tensor) -> "TensorSpec":
        """Describe a tensor; one with gaps or overlaps in memory will cross as a contiguous one."""
        strides = tensor.stride() if is_dense(tensor) else None
        return TensorSpec(tuple(tensor.shape), tensor.dtype, strides)

    def empty(self, device: torch.device | str = "cpu", *, pin_memory: bool = False) -> Tensor:
        """Return an uninitialised tensor, by default in ordinary host memory."""
        if self.strides is None:
            return torch.empty(self.shape, dtype=self.dtype, device=device, pin_memory=pin_memory)
        return torch.empty_strided(
            self.shape, self.strides, dtype=self.dtype, device=device, pin_memory=pin_memory
        )

    def arranged(self, tensor: Tensor) -> Tensor:
        """Return a tensor of this shape in this memory layout, copied only if it has another."""
        held = tensor.detach()
        return held.contiguous() if self.strides is None else with_strides(held, self.strides)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


@dataclass(frozen=True)
class BoundarySpec:
    """The tensors that cross for one micro-batch; `packed` is True if they are a tuple."""

    tensors: tuple[TensorSpec, ...]
    packed: bool

    @staticmethod
    def of(activation: Tensor | tuple[Tensor, ...]) -> "BoundarySpec":
        """Describe an activation."""
        tensors = tuple(TensorSpec.of(tensor) for tensor in as_tuple(activation))
        return BoundarySpec(tensors, not isinstance(activation, Tensor))

    def __str__(self) -> str:
        tensors = ", ".join(str(spec) for spec in self.tensors)
        return f"({tensors})" if self.packed else tensors

    def gradients(self) -> tuple[TensorSpec, ...]:
        """Return what crosses backwards: the gradient of each floating-point tensor."""
        return tuple(spec for spec in self.tensors if spec.dtype.is_floating_point)

    def arranged(self, activation: Activation) -> tuple[Tensor, ...]:
        """Return the tensors of an activation in their agreed memory layouts."""
        crossing = zip(self.tensors, as_tuple(activation), strict=True)
        return tuple(spec.arranged(tensor) for spec, tensor in crossing)

    def arranged_gradients(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the gradients in the memory layouts of the tensors that they belong to."""
        crossing = zip(self.gradients(), gradients, strict=True)
        return tuple(spec.arranged(tensor) for spec, tensor in crossing)


@dataclass(frozen=True)
class StageBoundaries:
    """What enters and leaves one stage, by the number of samples of a micro-batch."""

    incoming: dict[int, BoundarySpec]
    outgoing: dict[int, BoundarySpec]


@torch.no_grad()
def probe_boundaries(
    stage_module: PlannedModule,
    model: LayeredModel,
    sizes: Iterable[int],
    shape: DataShape,
    job: MpiJob,
    topology: PipelineTopology,
    device: torch.device,
) -> StageBoundaries:
    """Find out what crosses by passing zeros of every micro-batch size through the pipeline.

    Every stage calls this (collective). The pass is in evaluation mode, which changes neither
    running statistics nor random numbers, so the probe does not change the training.

    Raises:
        TrainingError: if a layer raises anything, or the stage before sends nothing in time.
    """
    was_training = stage_module.training
    stage_module.eval()
    stage = topology.stage
    compute_format = stage_module.compute_format
    faults = Faults(
        model,
        stage_module.local_layers(),
        topology.rank,
        stage=stage,
        compute_format=compute_format,
    )
    incoming: dict[int, BoundarySpec] = {}
    outgoing: dict[int, BoundarySpec] = {}
    for size in sorted(set(sizes)):
        if stage == 0:
            dtype = torch.float32 if shape.kind == "image" else torch.int64
            zero_samples = torch.zeros((size, *shape.input_shape), dtype=dtype, device=device)
            inputs: Activation = compute_format.arranged(zero_samples)
        else:
            try:
                spec = _receive_spec(job, topology.previous_rank)
            except BoundaryError as error:
                named = f"probe of {size} zero samples before training"
                raise faults.describe(error, named) from error
            incoming[size] = spec
            zeros = tuple(t.empty().zero_().to(device) for t in spec.tensors)
            inputs = zeros if spec.packed else zeros[0]
        if stage < topology.stages - 1:
            try:
                outgoing[size] = BoundarySpec.of(stage_module(inputs))
            except Exception as error:
                named = f"probe of {size} zero samples before training"
                raise faults.describe(error, named) from error
            job.communicator.send(outgoing[size], dest=topology.next_rank, tag=_PROBE_TAG)
    stage_module.train(was_training)
    return StageBoundaries(incoming, outgoing)


def _receive_spec(job: MpiJob, source: int) -> BoundarySpec:
    try:
        spec: BoundarySpec = receive_object(job.communicator, source, _PROBE_TAG, job.limit_seconds)
    except TimeoutError:
        raise BoundaryError.silence(source, job.limit_seconds) from None
    return spec
