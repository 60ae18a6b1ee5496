"""VGG networks with batch normalisation (Simonyan and Zisserman 2015) for small images."""

from functools import partial

from torch import nn

from hpc_lpm.data.dataset import DataShape, require_images
from hpc_lpm.identifiers import require_at_least
from hpc_lpm.models.convolution import NormReLU, PooledClassifier, convolution
from hpc_lpm.models.layered import Layer, LayeredModel

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
"""How many convolutions each of the five groups has, by depth."""

_WIDENING = (1, 2, 4, 8, 8)


def vgg(shape: DataShape, *, depth: int, width: int = 64) -> LayeredModel:
    """Build VGG-`depth` whose first group has `width` channels and the last eight times as many.

    Each group ends with 2x2 max pooling as long as there are pixels to pool. The classifier is the
    mean over the remaining pixels and one linear layer, as is usual for small images.

    Raises:
        InputError: if the data are not images or `width` is below 1.
    """
    name = f"vgg{depth}"
    incoming, height, image_width = require_images(name, shape)
    require_at_least(name, "width", width, 1)
    size = min(height, image_width)
    layers: list[Layer] = []
    for group, (count, widening) in enumerate(
        zip(CONVOLUTIONS[depth], _WIDENING, strict=True), start=1
    ):
        outgoing = width * widening
        for position in range(1, count + 1):
            layers += [
                Layer(f"group{group}.conv{position}", partial(convolution, incoming, outgoing)),
                Layer(f"group{group}.norm{position}", partial(NormReLU, outgoing)),
            ]
            incoming = outgoing
        if size >= 2:
            layers.append(Layer(f"group{group}.pool", partial(nn.MaxPool2d, 2)))
            size //= 2
    layers.append(Layer("classifier", partial(PooledClassifier, incoming, shape.classes)))
    return LayeredModel(name, tuple(layers))
