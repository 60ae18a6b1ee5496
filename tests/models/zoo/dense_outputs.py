"""Networks with an output for every pixel, or with several resolutions at once."""

import torch
from torch import Tensor, nn

from tests.models.zoo.parts import ConvNorm, Head
from tests.models.zoo.residual import Basic
from tests.models.zoo.specimen import CLASSES, of_images, of_pixels


class Twice(nn.Sequential):
    """Two convolutions."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(ConvNorm(channels, outputs), ConvNorm(outputs, outputs))


class UNet(nn.Module):
    """Down and up again, each level joined with its equal on the way down."""

    def __init__(self, widths: tuple[int, ...] = (8, 12, 16)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            Twice(before, after) for before, after in zip((3, *widths), widths, strict=False)
        )
        self.bottom = Twice(widths[-1], 2 * widths[-1])
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        channels = 2 * widths[-1]
        for width in reversed(widths):
            self.up.append(nn.ConvTranspose2d(channels, width, 2, stride=2))
            self.merge.append(Twice(2 * width, width))
            channels = width
        self.last = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.last(x)


class FeaturePyramid(nn.Module):
    """A backbone whose levels are joined from the smallest to the largest."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 24), shared: int = 12) -> None:
        super().__init__()
        channels = (3, *widths)
        self.levels = nn.ModuleList(
            Basic(before, after, 2) for before, after in zip(channels, widths, strict=False)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, shared, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(shared, shared, 3, padding=1) for _ in widths)
        self.last = nn.Conv2d(shared, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        size, features = x.shape[-2:], []
        for level, lateral in zip(self.levels, self.lateral, strict=True):
            x = level(x)
            features.append(lateral(x))
        total = features[-1]
        outputs = [self.smooth[-1](total)]
        for feature, smooth in zip(features[-2::-1], list(self.smooth)[-2::-1], strict=True):
            total = feature + nn.functional.interpolate(total, scale_factor=2.0)
            outputs.append(smooth(total))
        sizes = [
            nn.functional.interpolate(each, size=size, mode="bilinear", align_corners=False)
            for each in outputs
        ]
        return self.last(torch.stack(sizes).sum(0))


class HighResolution(nn.Module):
    """Two resolutions side by side that exchange what they have found."""

    def __init__(self, fine: int = 8, coarse: int = 16, stages: int = 3) -> None:
        super().__init__()
        self.stem = ConvNorm(3, fine, stride=2)
        self.split = ConvNorm(fine, coarse, stride=2)
        self.fine = nn.ModuleList(Basic(fine, fine, 1) for _ in range(stages))
        self.coarse = nn.ModuleList(Basic(coarse, coarse, 1) for _ in range(stages))
        self.down = nn.ModuleList(
            ConvNorm(fine, coarse, stride=2, activation=None) for _ in range(stages)
        )
        self.up = nn.ModuleList(ConvNorm(coarse, fine, 1, activation=None) for _ in range(stages))
        self.head = Head(fine + coarse)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        coarse = self.split(fine)
        for one, other, down, up in zip(self.fine, self.coarse, self.down, self.up, strict=True):
            fine, coarse = one(fine), other(coarse)
            larger = nn.functional.interpolate(up(coarse), scale_factor=2, mode="nearest")
            fine, coarse = torch.relu(fine + larger), torch.relu(coarse + down(fine))
        pooled = nn.functional.avg_pool2d(fine, 2)
        return self.head(torch.cat((pooled, coarse), 1))


class EncoderDecoder(nn.Module):
    """To a small code and back, without skips; pooled places are put back where they were."""

    def __init__(self) -> None:
        super().__init__()
        self.encode1, self.encode2 = Twice(3, 8), Twice(8, 16)
        self.code = nn.Sequential(ConvNorm(16, 16), ConvNorm(16, 16))
        self.decode2, self.decode1 = Twice(16, 8), Twice(8, 8)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.last = nn.Conv2d(8, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, places1 = self.pool(self.encode1(x))
        x, places2 = self.pool(self.encode2(x))
        x = self.decode2(self.unpool(self.code(x), places2))
        return self.last(self.decode1(self.unpool(x, places1)))


DENSE_OUTPUTS = [
    of_pixels("U-Net", UNet),
    of_pixels("feature pyramid", FeaturePyramid),
    of_images("high resolution", HighResolution),
    of_pixels("encoder and decoder", EncoderDecoder),
]
