"""A model to edit: a function that returns a builder for each layer, in the order of the layers.

The finer the layers, the better stages can be balanced. It may return any `nn.Module` instead.
"""

from functools import partial

from torch import nn


def network(shape, width=1024, depth=4):
    """Return a perceptron; `width` and `depth` are options, as in `my_model:network,width=512`.

    Args:
        shape: describes the data: `shape.input_shape` and `shape.classes`.
        width: numbers between two layers.
        depth: hidden layers.
    """
    channels, height, columns = shape.input_shape
    layers = [nn.Flatten, partial(nn.Linear, channels * height * columns, width)]
    for _ in range(depth):
        layers += [nn.ReLU, partial(nn.Linear, width, width)]
    return [*layers, nn.ReLU, partial(nn.Linear, width, shape.classes)]
