"""A multi-layer perceptron on flattened inputs."""

from functools import partial
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import require_at_least
from hpc_lpm.models.layered import Layer, LayeredModel


class LinearReLU(nn.Module):
    """Linear layer and rectifier; inputs [n, ...] are flattened to [n, features]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Flatten, transform and rectify."""
        return self.linear(inputs.flatten(1)).relu_()  # type: ignore[no-any-return]


def mlp(shape: DataShape, *, width: int = 256, layers: int = 4) -> LayeredModel:
    """Build `layers` linear layers, of which all but the last have `width` outputs and a rectifier.

    Raises:
        InputError: if the data are text or no tensors, `width` is below 1 or `layers` below 2.
    """
    if shape.kind != "image":
        raise InputError(
            f"mlp takes numbers, the data set holds {shape.kind} of shape {shape.input_shape}: "
            "choose another model or data set."
        )
    features = prod(shape.input_shape)
    require_at_least("mlp", "width", width, 1)
    require_at_least("mlp", "layers", layers, 2)
    widths = [features] + [width] * (layers - 1)
    chain = [
        Layer(f"hidden{number}", partial(LinearReLU, incoming, outgoing))
        for number, (incoming, outgoing) in enumerate(pairwise(widths), start=1)
    ]
    chain.append(Layer("output", partial(nn.Linear, width, shape.classes)))
    return LayeredModel("mlp", tuple(chain))
