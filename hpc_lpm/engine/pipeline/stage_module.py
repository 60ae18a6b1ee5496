"""The layers of one stage, as what executes its programme takes them."""

from collections.abc import Mapping

from torch import nn

from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layer_calls import LayerCalls


class StageModule(nn.Module):
    """Holds the layers of one stage without an engine of DeepSpeed around them.

    Args:
        layers: by their index in the model.
        compute_format: precision and memory format of the layers.
        calls: runs them.
    """

    def __init__(
        self, layers: Mapping[int, nn.Module], compute_format: ComputeFormat, calls: LayerCalls
    ) -> None:
        super().__init__()
        self.calls = calls
        self._compute_format = compute_format
        self._indices = tuple(layers)
        for index, layer in layers.items():
            self.add_module(str(index), layer)

    def arrange(self) -> None:
        """Convert the weights to the run's memory format."""
        self._compute_format.arrange(self)

    def local_layers(self) -> dict[int, nn.Module]:
        """Return the layers by their index in the model."""
        return {index: self.get_submodule(str(index)) for index in self._indices}
