"""Merged stages as DeepSpeed pipeline modules."""

import contextlib
import io
from collections.abc import Sequence

from deepspeed.pipe import LayerSpec, PipelineModule
from torch import nn

from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layered import Activation, LayeredModel, as_tuple


class IndexedLayerSpec(LayerSpec):  # type: ignore[misc]
    """A layer that DeepSpeed builds where it is needed, with weights of (seed, index) alone."""

    def __init__(self, model: LayeredModel, index: int, seed: int) -> None:
        super().__init__(nn.Module)
        self._model = model
        self._index = index
        self._seed = seed

    def build(self, log: bool = False) -> nn.Module:
        """Build the layer."""
        return self._model.build_layer(self._index, self._seed)


class PlannedModule(PipelineModule):  # type: ignore[misc]
    """A pipeline module whose layer map is a plan instead of one of DeepSpeed's methods."""

    def __init__(
        self,
        model: LayeredModel,
        cuts: Sequence[int],
        seed: int,
        compute_format: ComputeFormat,
    ) -> None:
        self.compute_format = compute_format
        specs = [IndexedLayerSpec(model, index, seed) for index in range(len(model.layers))]
        # The base class prints the layer map on rank 0 and has no switch for that.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                layers=specs,
                num_stages=len(cuts) - 1,
                loss_fn=model.loss,
                partition_method=list(cuts),
            )

    def forward(self, forward_input: Activation) -> Activation:
        """Run this stage's layers."""
        with self.compute_format.autocast(as_tuple(forward_input)[0].device):
            return super().forward(forward_input)  # type: ignore[no-any-return]

    def _partition_layers(self, method: list[int]) -> None:
        # The base class calls this from its constructor, before it builds the local layers.
        self.parts = method
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=method[stage], stop=method[stage + 1])

    def arrange(self) -> None:
        """Put the weights into the order in memory of the run.

        To be called once the engine is there: DeepSpeed's takes contiguous weights alone.
        """
        self.compute_format.arrange(self)

    def local_layers(self) -> dict[int, nn.Module]:
        """Return this stage's layers by their index in the model."""
        return {
            index: getattr(self, str(index)) for index in range(self._local_start, self._local_stop)
        }
