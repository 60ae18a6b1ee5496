"""Plain, branching and light convolutional networks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.models.zoo.parts import ChannelGate, ConvNorm, DropPath, Head
from tests.models.zoo.specimen import CLASSES, of_images


class Plain(nn.Module):
    """Convolutions and pooling, then linear layers with dropout (VGG)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (8, 16, 32):
            layers += [ConvNorm(channels, width), ConvNorm(width, width), nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 16, 48),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(48, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).view(x.size(0), -1))


class InceptionBlock(nn.Module):
    """Four branches side by side, joined by channel."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        each = outputs // 4
        self.one = ConvNorm(channels, each, 1)
        self.three = nn.Sequential(ConvNorm(channels, each, 1), ConvNorm(each, each, 3))
        self.five = nn.Sequential(ConvNorm(channels, each, 1), ConvNorm(each, each, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvNorm(channels, each, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)


class FireBlock(nn.Module):
    """Squeeze to few channels, then expand through two sizes (SqueezeNet)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, outputs // 4, 1)
        self.point = nn.Conv2d(outputs // 4, outputs // 2, 1)
        self.wide = nn.Conv2d(outputs // 4, outputs // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = torch.relu(self.squeeze(x))
        return torch.cat((self.point(squeezed).relu(), self.wide(squeezed).relu()), 1)


class Separable(nn.Sequential):
    """A convolution of each channel, then one of each pixel (MobileNet)."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__(
            ConvNorm(channels, channels, stride=stride, groups=channels, activation=nn.ReLU6),
            ConvNorm(channels, outputs, 1, activation=nn.ReLU6),
        )


class Inverted(nn.Module):
    """Widen, convolve each channel, gate, narrow; added where shapes allow."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        stride: int,
        activation: type[nn.Module],
        gate: type[nn.Module] | None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        wide = 3 * channels
        self.widen = ConvNorm(channels, wide, 1, activation=activation)
        self.depthwise = ConvNorm(wide, wide, stride=stride, groups=wide, activation=activation)
        self.gate = ChannelGate(wide, channels, gate) if gate else nn.Identity()
        self.narrow = ConvNorm(wide, outputs, 1, activation=None)
        self.drop_path = DropPath(drop_path)
        self.added = (channels, stride) == (outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.narrow(self.gate(self.depthwise(self.widen(x))))
        return x + self.drop_path(out) if self.added else out


class Shuffle(nn.Module):
    """Half of the channels is convolved, then the halves are shuffled (ShuffleNet)."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.halved = stride == 1
        entering, half = (channels // 2 if self.halved else channels), outputs // 2
        self.branch = nn.Sequential(
            ConvNorm(entering, half, 1),
            ConvNorm(half, half, stride=stride, groups=half, activation=None),
            ConvNorm(half, half, 1),
        )
        self.other = nn.Identity() if self.halved else Separable(channels, half, stride)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.halved else (x, x)
        joined = torch.cat((self.other(left), self.branch(right)), 1)
        samples, channels, height, width = joined.shape
        pairs = joined.view(samples, 2, channels // 2, height, width).transpose(1, 2)
        return pairs.reshape(samples, channels, height, width)


class GhostModule(nn.Module):
    """Half of the channels by a convolution, the other half cheaply from those."""

    def __init__(self, channels: int, outputs: int, activation: type[nn.Module] | None) -> None:
        super().__init__()
        self.primary = ConvNorm(channels, outputs // 2, 1, activation=activation)
        self.cheap = ConvNorm(
            outputs // 2, outputs // 2, groups=outputs // 2, activation=activation
        )

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], 1)


class Ghost(nn.Module):
    """Two ghost modules, with a strided convolution between them, and a shortcut."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.widen = GhostModule(channels, wide, nn.ReLU)
        self.down = ConvNorm(wide, wide, stride=stride, groups=wide, activation=None)
        self.gate = ChannelGate(wide, channels, nn.Hardsigmoid)
        self.narrow = GhostModule(wide, outputs, None)
        self.shortcut = Separable(channels, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.narrow(self.gate(self.down(self.widen(x))))
        return out + self.shortcut(x)


class Light(nn.Module):
    """A stem, two blocks of each width, and a classifier with dropout."""

    def __init__(
        self, block: Callable[[int, int, int], nn.Module], activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, stride=2, activation=activation)
        self.features = nn.Sequential(
            block(8, 8, 1), block(8, 16, 2), block(16, 16, 1), block(16, 24, 2), block(24, 24, 1)
        )
        self.last = ConvNorm(24, 48, 1, activation=activation)
        self.head = Head(48, dropout=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.features(self.stem(x))))


def _branching(block: Callable[[int, int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        ConvNorm(3, 16, stride=2),
        block(16, 32),
        block(32, 32),
        nn.MaxPool2d(2),
        block(32, 48),
        block(48, 48),
        Head(48, dropout=0.4),
    )


def _mobile3(channels: int, outputs: int, stride: int) -> nn.Module:
    return Inverted(channels, outputs, stride, nn.Hardswish, nn.Hardsigmoid)


def _efficient(channels: int, outputs: int, stride: int) -> nn.Module:
    return Inverted(channels, outputs, stride, nn.SiLU, nn.Sigmoid, drop_path=0.2)


LIGHT = [
    of_images("plain (VGG)", Plain),
    of_images("inception", lambda: _branching(InceptionBlock)),
    of_images("fire (SqueezeNet)", lambda: _branching(FireBlock)),
    of_images("separable (MobileNet)", lambda: Light(Separable, nn.ReLU6)),
    of_images("inverted residual (MobileNetV3)", lambda: Light(_mobile3, nn.Hardswish)),
    of_images("efficient", lambda: Light(_efficient, nn.SiLU)),
    of_images("channel shuffle", lambda: Light(Shuffle)),
    of_images("ghost", lambda: Light(Ghost)),
]
