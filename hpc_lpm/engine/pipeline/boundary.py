"""What crosses the boundary between two stages, found out before training."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.faults import Faults
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.models.layered import LayeredModel, as_tuple

_PROBE_TAG = 7


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of one tensor that crosses."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def empty(self) -> Tensor:
        """Return an uninitialised tensor in host memory."""
        return torch.empty(self.shape, dtype=self.dtype)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


@dataclass(frozen=True)
class BoundarySpec:
    """The tensors that cross for one micro-batch; `packed` tells a tuple from a lone tensor."""

    tensors: tuple[TensorSpec, ...]
    packed: bool

    @staticmethod
    def of(activation: Tensor | tuple[Tensor, ...]) -> "BoundarySpec":
        """Describe an activation."""
        tensors = tuple(TensorSpec(tuple(t.shape), t.dtype) for t in as_tuple(activation))
        return BoundarySpec(tensors, not isinstance(activation, Tensor))

    def __str__(self) -> str:
        tensors = ", ".join(str(spec) for spec in self.tensors)
        return f"({tensors})" if self.packed else tensors

    def gradients(self) -> tuple[TensorSpec, ...]:
        """Return what crosses backwards: one gradient for each floating-point tensor."""
        return tuple(spec for spec in self.tensors if spec.dtype.is_floating_point)


@dataclass(frozen=True)
class StageBoundaries:
    """What enters and leaves one stage, by the number of samples in the micro-batch."""

    incoming: dict[int, BoundarySpec]
    outgoing: dict[int, BoundarySpec]


@torch.no_grad()
def probe_boundaries(
    stage_module: PlannedModule,
    model: LayeredModel,
    sizes: Iterable[int],
    shape: DataShape,
    job: MpiJob,
    stage: int,
    stages: int,
    device: torch.device,
) -> StageBoundaries:
    """Push zeros of every micro-batch size through the pipeline once (collective).

    Evaluation mode leaves running statistics and random numbers alone, so the probe cannot be told
    from no probe.

    Raises:
        TrainingError: if a layer raises anything.
    """
    was_training = stage_module.training
    stage_module.eval()
    faults = Faults(model, stage_module.local_layers(), stage, stage=stage)
    incoming: dict[int, BoundarySpec] = {}
    outgoing: dict[int, BoundarySpec] = {}
    for size in sorted(set(sizes)):
        if stage == 0:
            dtype = torch.float32 if shape.kind == "image" else torch.int64
            inputs: Tensor | tuple[Tensor, ...] = torch.zeros(
                (size, *shape.input_shape), dtype=dtype, device=device
            )
        else:
            spec: BoundarySpec = job.communicator.recv(source=job.rank - 1, tag=_PROBE_TAG)
            incoming[size] = spec
            zeros = tuple(t.empty().zero_().to(device) for t in spec.tensors)
            inputs = zeros if spec.packed else zeros[0]
        if stage < stages - 1:
            try:
                outgoing[size] = BoundarySpec.of(stage_module(inputs))
            except Exception as error:
                named = f"probe of {size} zero samples before training"
                raise faults.describe(error, named) from error
            job.communicator.send(outgoing[size], dest=job.rank + 1, tag=_PROBE_TAG)
    stage_module.train(was_training)
    return StageBoundaries(incoming, outgoing)
