"""Makes merged stages into pipeline modules of DeepSpeed."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from hpc_lpm.activation import Activation
from hpc_lpm.engine.pipeline.deepspeed_parts import LayerSpec, PipelineModule
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layer_calls import LayerCalls


class BuiltLayerSpec(LayerSpec):  # type: ignore[misc]
    """The spec of a layer that has been built; DeepSpeed only asks for those of its own stage."""

    def __init__(self, layers: Mapping[int, nn.Module], index: int) -> None:
        super().__init__(nn.Module)
        self._layers = layers
        self._index = index

    def build(self, log: bool = False) -> nn.Module:
        """Return the layer that has been built."""
        return self._layers[self._index]


class PlannedModule(PipelineModule):  # type: ignore[misc]
    """A pipeline module whose layer map is a plan instead of one of DeepSpeed's methods.

    Args:
        layers: the layers of this rank's stage, by their index in the model.
        cuts: the K+1 cut positions of the plan.
        loss: the loss that the last stage computes from outputs and targets.
        compute_format: precision and memory format of the layers.
        calls: runs the layers of this rank's stage.
    """

    def __init__(
        self,
        layers: Mapping[int, nn.Module],
        cuts: Sequence[int],
        loss: Callable[[Tensor, Tensor], Tensor],
        compute_format: ComputeFormat,
        calls: LayerCalls,
    ) -> None:
        self.compute_format = compute_format
        self.calls = calls
        self.enter: Callable[[Activation], Activation] | None = None
        self.leave: Callable[[Activation], Activation] | None = None
        specs = [BuiltLayerSpec(layers, index) for index in range(cuts[-1])]
        # The base class prints the layer map on rank 0 and has no switch for that.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                layers=specs,
                num_stages=len(cuts) - 1,
                loss_fn=loss,
                partition_method=list(cuts),
            )

    def forward(self, forward_input: Activation) -> Activation:
        """Run this stage's layers, between what adapts them to an engine's transport."""
        activation = self.enter(forward_input) if self.enter else forward_input
        with self.compute_format.autocast(self.calls.device):
            activation = self.calls.run(activation)
        return self.leave(activation) if self.leave else activation

    def _partition_layers(self, method: list[int]) -> None:
        # The base class calls this from its constructor, before it builds the local layers.
        self.parts = method
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=method[stage], stop=method[stage + 1])

    def arrange(self) -> None:
        """Convert the weights to the run's memory format.

        Call this after the engine has been built: DeepSpeed's engine only takes contiguous weights.
        """
        self.compute_format.arrange(self)

    def local_layers(self) -> dict[int, nn.Module]:
        """Return this stage's layers by their index in the model."""
        return {
            index: getattr(self, str(index)) for index in range(self._local_start, self._local_stop)
        }
