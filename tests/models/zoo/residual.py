"""Networks whose blocks are added to, or joined with, what went into them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.models.zoo.parts import ChannelGate, ConvNorm, Head
from tests.models.zoo.specimen import of_images

WIDTHS = (8, 16, 32)


class Basic(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int, outputs: int, stride: int, gated: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, outputs, stride=stride)
        self.conv2 = ConvNorm(outputs, outputs, activation=None)
        self.gate = ChannelGate(outputs, outputs // 4) if gated else None
        self.shortcut = (
            ConvNorm(channels, outputs, 1, stride=stride, activation=None)
            if stride > 1 or channels != outputs
            else None
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv2(self.conv1(x))
        if self.gate is not None:
            branch = self.gate(branch)
        branch += x if self.shortcut is None else self.shortcut(x)
        return self.relu(branch)


class Bottleneck(nn.Module):
    """Narrow, convolve (in groups), widen, and a shortcut."""

    def __init__(self, channels: int, outputs: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        inner = outputs // 2
        self.narrow = ConvNorm(channels, inner, 1)
        self.conv = ConvNorm(inner, inner, stride=stride, groups=groups)
        self.widen = ConvNorm(inner, outputs, 1, activation=None)
        self.shortcut = (
            ConvNorm(channels, outputs, 1, stride=stride, activation=None)
            if stride > 1 or channels != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.widen(self.conv(self.narrow(x))) + self.shortcut(x))


class PreActivation(nn.Module):
    """A wide block: normalise and rectify first, dropout between the convolutions."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(channels, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(0.3)
        self.shortcut = nn.Conv2d(channels, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        branch = self.conv2(self.dropout(torch.relu(self.norm2(self.conv1(active)))))
        return branch + self.shortcut(active)


class Staged(nn.Module):
    """A stem, two blocks of each width, and a classifier."""

    def __init__(self, block: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        self.stem = ConvNorm(3, WIDTHS[0])
        stages, channels = [], WIDTHS[0]
        for number, width in enumerate(WIDTHS):
            stride = 2 if number else 1
            stages.append(nn.Sequential(block(channels, width, stride), block(width, width, 1)))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.head = Head(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


class DenseLayer(nn.Module):
    """Adds channels that are computed from all channels before."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, earlier: list[Tensor]) -> Tensor:
        joined = torch.cat(earlier, 1)
        inner = self.conv1(torch.relu(self.norm1(joined)))
        return self.conv2(torch.relu(self.norm2(inner)))


class DenseNet(nn.Module):
    """Blocks in which every layer sees the outputs of all layers before it."""

    def __init__(self, growth: int = 6, layers: int = 3, blocks: int = 3) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(blocks):
            layer_list = [DenseLayer(channels + n * growth, growth) for n in range(layers)]
            self.blocks.append(nn.ModuleList(layer_list))
            channels += layers * growth
            self.transitions.append(ConvNorm(channels, channels // 2, 1))
            channels //= 2
        self.head = Head(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            parts = [x]
            for layer in block:
                parts.append(layer(parts))
            x = nn.functional.avg_pool2d(transition(torch.cat(parts, 1)), 2)
        return self.head(x)


class DualPathBlock(nn.Module):
    """A path that is added and a path that grows, through the same convolutions."""

    def __init__(self, added: int, grown: int, growth: int) -> None:
        super().__init__()
        self.added, inner = added, added // 2
        self.convs = nn.Sequential(
            ConvNorm(added + grown, inner, 1),
            ConvNorm(inner, inner, groups=4),
            nn.Conv2d(inner, added + growth, 1, bias=False),
        )

    def forward(self, paths: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        residual, dense = paths
        out = self.convs(torch.cat((residual, dense), 1))
        return residual + out[:, : self.added], torch.cat((dense, out[:, self.added :]), 1)


class DualPath(nn.Module):
    """Residual and densely connected at once."""

    def __init__(self, added: int = 16, growth: int = 4, blocks: int = 6) -> None:
        super().__init__()
        self.added = added
        self.stem = ConvNorm(3, added + growth)
        self.blocks = nn.ModuleList(
            DualPathBlock(added, growth * (1 + number), growth) for number in range(blocks)
        )
        self.head = Head(added + growth * (1 + blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.stem(x), 2)
        paths = x[:, : self.added], x[:, self.added :]
        for block in self.blocks:
            paths = block(paths)
        return self.head(torch.cat(paths, 1))


class Highway(nn.Module):
    """Linear layers with a learnt gate between the new and the old."""

    def __init__(self, width: int = 32, layers: int = 8) -> None:
        super().__init__()
        self.inward = nn.Linear(3 * 32 * 32, width)
        self.plain = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.outward = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inward(x.flatten(1))
        for plain, gate in zip(self.plain, self.gates, strict=True):
            opened = torch.sigmoid(gate(x) - 1.0)
            x = opened * torch.tanh(plain(x)) + (1 - opened) * x
        return self.outward(x)


class ThreeBranches(nn.Module):
    """A 3x3, a 1x1 and an identity branch, each normalised, that could be merged into one."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.wide = ConvNorm(channels, outputs, stride=stride, activation=None)
        self.point = ConvNorm(channels, outputs, 1, stride=stride, activation=None)
        self.identity = nn.BatchNorm2d(channels) if (channels, stride) == (outputs, 1) else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.wide(x) + self.point(x)
        return torch.relu(total if self.identity is None else total + self.identity(x))


class CrossStage(nn.Module):
    """Half of the channels goes through residual blocks, the other half past them."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.down = ConvNorm(channels, outputs, stride=stride)
        self.split = ConvNorm(outputs, outputs, 1)
        self.blocks = nn.Sequential(*(Basic(outputs // 2, outputs // 2, 1) for _ in range(2)))
        self.join = ConvNorm(outputs, outputs, 1, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        past, through = self.split(self.down(x)).chunk(2, dim=1)
        return self.join(torch.cat((self.blocks(through), past), 1))


def _gated(channels: int, outputs: int, stride: int) -> nn.Module:
    return Basic(channels, outputs, stride, gated=True)


def _grouped(channels: int, outputs: int, stride: int) -> nn.Module:
    return Bottleneck(channels, outputs, stride, groups=2)


RESIDUAL = [
    of_images("residual", lambda: Staged(Basic)),
    of_images("bottleneck residual", lambda: Staged(Bottleneck)),
    of_images("wide residual", lambda: Staged(PreActivation)),
    of_images("grouped residual (ResNeXt)", lambda: Staged(_grouped)),
    of_images("squeeze and excitation", lambda: Staged(_gated)),
    of_images("three branches (RepVGG)", lambda: Staged(ThreeBranches)),
    of_images("cross stage partial", lambda: Staged(CrossStage)),
    of_images("densely connected", DenseNet),
    of_images("dual path", DualPath),
    of_images("highway", Highway),
]
