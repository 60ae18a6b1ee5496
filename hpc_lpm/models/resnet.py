"""Residual networks in the CIFAR style of He et al. 2016 (section 4.2), in fine-grained layers.

Three groups of n blocks, depth 6n + 2, with shortcuts that have no parameters (option A). A block
is four layers, between which the skip connection travels beside the main path:

    conv1:  x          -> (conv(x), skip)            skip = x, or x at every other pixel
    norm1:  (y, skip)  -> (relu(norm(y)), skip)
    conv2:  (y, skip)  -> (conv(y), skip)
    norm2:  (y, skip)  -> relu(norm(y) + skip)       missing channels of skip are zero
"""

from functools import partial

from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape, require_images
from hpc_lpm.identifiers import require_at_least
from hpc_lpm.models.convolution import NormReLU, PooledClassifier, convolution
from hpc_lpm.models.layered import Layer, LayeredModel

Pair = tuple[Tensor, Tensor]


class BlockOpening(nn.Module):
    """First convolution of a block, where the skip connection branches off."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = convolution(in_channels, out_channels, stride)

    def forward(self, inputs: Tensor) -> Pair:
        """Return the convolved inputs and the skip connection at the same image size."""
        if self.stride == 1:
            return self.conv(inputs), inputs
        # Copied, since a view would keep, and send, pixels that are not read again.
        return self.conv(inputs), inputs[:, :, :: self.stride, :: self.stride].clone()


class BesideSkip(nn.Module):
    """Applies a layer to the main path and passes the skip connection on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Pair) -> Pair:
        """Transform the first tensor alone."""
        main, skip = inputs
        return self.layer(main), skip


class BlockClosing(nn.Module):
    """End of a block: second normalisation, sum with the skip connection, rectifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, inputs: Pair) -> Tensor:
        """Add both paths; channels that `skip` lacks are filled with zeros on both sides."""
        main, skip = inputs
        missing = main.shape[1] - skip.shape[1]
        if missing:
            before = missing // 2
            skip = nn.functional.pad(skip, (0, 0, 0, 0, before, missing - before))
        return self.norm(main).add_(skip).relu_()  # type: ignore[no-any-return]


def resnet(shape: DataShape, *, depth: int, width: int = 16) -> LayeredModel:
    """Build ResNet-`depth` (depth = 6n + 2) whose first group has `width` channels.

    Raises:
        InputError: if the data are not images of at least 8x8 pixels or `width` is below 1.
    """
    name = f"resnet{depth}"
    channels, _, _ = require_images(name, shape, least_size=8)
    require_at_least(name, "width", width, 1)
    layers = [
        Layer("stem.conv", partial(convolution, channels, width)),
        Layer("stem.norm", partial(NormReLU, width)),
    ]
    incoming = width
    for group in range(3):
        outgoing = width * 2**group
        for block in range((depth - 2) // 6):
            stride = 2 if group > 0 and block == 0 else 1
            layers += _block(f"group{group + 1}.block{block}", incoming, outgoing, stride)
            incoming = outgoing
    layers.append(Layer("classifier", partial(PooledClassifier, incoming, shape.classes)))
    return LayeredModel(name, tuple(layers))


def _block(name: str, incoming: int, outgoing: int, stride: int) -> list[Layer]:
    return [
        Layer(f"{name}.conv1", partial(BlockOpening, incoming, outgoing, stride)),
        Layer(f"{name}.norm1", lambda: BesideSkip(NormReLU(outgoing))),
        Layer(f"{name}.conv2", lambda: BesideSkip(convolution(outgoing, outgoing))),
        Layer(f"{name}.norm2", partial(BlockClosing, outgoing)),
    ]
