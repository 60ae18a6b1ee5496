"""Networks over patches: mixers, transformers and mixtures of experts."""

import torch
from torch import Tensor, nn

from tests.models.zoo.parts import ConvNorm, Encoder, FeedForward, Head
from tests.models.zoo.specimen import CLASSES, of_images

WIDTH = 24
PATCHES = 16
BLOCKS = 4


class Patches(nn.Module):
    """Images [n, 3, 32, 32] to patches [n, 16, width]."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, width, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x).flatten(2).transpose(1, 2)


class ConvMixer(nn.Module):
    """Depthwise convolutions with a shortcut, then pointwise ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.GELU(), nn.BatchNorm2d(WIDTH))
        self.depthwise, self.pointwise = nn.ModuleList(), nn.ModuleList()
        for _ in range(BLOCKS):
            depthwise = nn.Conv2d(WIDTH, WIDTH, 5, groups=WIDTH, padding="same")
            self.depthwise.append(nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(WIDTH)))
            pointwise = nn.Conv2d(WIDTH, WIDTH, 1)
            self.pointwise.append(nn.Sequential(pointwise, nn.GELU(), nn.BatchNorm2d(WIDTH)))
        self.head = Head(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = pointwise(depthwise(x) + x)
        return self.head(x)


class MixerBlock(nn.Module):
    """Mixes patches, then channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.patches = FeedForward(PATCHES, 32)
        self.channels = FeedForward(WIDTH, 48, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class AffineBlock(nn.Module):
    """A mixer that scales and shifts instead of normalising (ResMLP)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(WIDTH)) for _ in range(2))
        self.shift1, self.shift2 = (nn.Parameter(torch.zeros(WIDTH)) for _ in range(2))
        self.gain1, self.gain2 = (nn.Parameter(0.1 * torch.ones(WIDTH)) for _ in range(2))
        self.patches = nn.Linear(PATCHES, PATCHES)
        self.channels = FeedForward(WIDTH, 48)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.patches(torch.addcmul(self.shift1, self.scale1, x).mT).mT
        x = x + self.gain1 * mixed
        return x + self.gain2 * self.channels(torch.addcmul(self.shift2, self.scale2, x))


class SpatialGateBlock(nn.Module):
    """Half of the channels gates the other half, mixed over patches (gMLP)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gate_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inward, self.outward = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.spatial = nn.Linear(PATCHES, PATCHES)

    def forward(self, x: Tensor) -> Tensor:
        kept, gate = torch.chunk(nn.functional.gelu(self.inward(self.norm(x))), 2, dim=-1)
        gate = self.spatial(self.gate_norm(gate).transpose(1, 2)).transpose(1, 2)
        return x + self.outward(kept * (gate + 1.0))


class Experts(nn.Module):
    """Top two of four experts for every patch; each expert computes all, so shapes are static."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.router = nn.Linear(WIDTH, experts, bias=False)
        self.inward = nn.Parameter(torch.randn(experts, WIDTH, 32) * 0.1)
        self.outward = nn.Parameter(torch.randn(experts, 32, WIDTH) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        weights = self.router(normal).softmax(-1)
        best, chosen = weights.topk(2, dim=-1)
        share = torch.zeros_like(weights).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        hidden = torch.einsum("npw,ewh->neph", normal, self.inward).relu()
        outputs = torch.einsum("neph,ehw->nepw", hidden, self.outward)
        return x + torch.einsum("nepw,npe->npw", outputs, share)


class AttentiveExperts(nn.Sequential):
    """Attention, then a mixture of experts."""

    def __init__(self) -> None:
        super().__init__(Encoder(WIDTH, 4), Experts())


class OverPatches(nn.Module):
    """Patches, equal blocks, and the mean of the patches to a classifier."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.patches = Patches()
        self.blocks = nn.ModuleList(block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x).mean(dim=1))


class VisionTransformer(nn.Module):
    """A class token, learnt positions and blocks with stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = Patches()
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, PATCHES + 1, WIDTH) * 0.02)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(
            *(Encoder(WIDTH, 4, 0.1, 0.1 * number / BLOCKS) for number in range(BLOCKS))
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), self.patches(x)), 1)
        x = self.blocks(self.dropout(x + self.positions))
        return self.head(self.norm(x)[:, 0])


class ReducedAttention(nn.Module):
    """Attention whose keys and values have a lower resolution than its queries."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width, reduction, reduction)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = FeedForward(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        samples, width, height, _ = x.shape
        queries = self.norm1(x.flatten(2).transpose(1, 2))
        grid = queries.transpose(1, 2).reshape(samples, width, height, -1)
        keys = self.norm2(self.reduce(grid).flatten(2).transpose(1, 2))
        attended, _ = self.attention(queries, keys, keys, need_weights=False)
        flat = x.flatten(2).transpose(1, 2) + attended
        flat = flat + self.feed_forward(self.norm3(flat))
        return flat.transpose(1, 2).reshape(samples, width, height, -1)


class PyramidTransformer(nn.Module):
    """Attention at falling resolution (PVT)."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        channels = (3, *widths)
        self.embed = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, 1)
            for before, after in zip(channels, widths, strict=False)
        )
        self.stages = nn.ModuleList(ReducedAttention(width, 2, 2) for width in widths)
        self.head = Head(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        for embed, stage in zip(self.embed, self.stages, strict=True):
            x = stage(embed(x))
        return self.head(x)


class RelativeAttention(nn.Module):
    """Attention over pixels with a learnt bias for every pair of them."""

    def __init__(self, width: int, pixels: int, heads: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(2 * pixels - 1, heads))
        places = torch.arange(pixels)
        self.register_buffer("pairs", places[:, None] - places[None, :] + pixels - 1)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), FeedForward(width, 2 * width))

    def forward(self, x: Tensor) -> Tensor:
        samples, pixels, width = x.shape
        joined = self.query_key_value(self.norm(x)).view(samples, pixels, 3, self.heads, -1)
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        bias = self.bias[self.pairs.view(-1)].view(pixels, pixels, self.heads).permute(2, 0, 1)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, bias[None])
        x = x + attended.transpose(1, 2).reshape(samples, pixels, width)
        return x + self.feed_forward(x)


class ConvolutionThenAttention(nn.Module):
    """Convolutional blocks, then attention over what is left (CoAtNet)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, width, stride=2), ConvNorm(width, width, stride=2))
        self.convs = nn.ModuleList(
            nn.Sequential(
                ConvNorm(width, 2 * width, 1, activation=nn.SiLU),
                ConvNorm(2 * width, 2 * width, groups=2 * width, activation=nn.SiLU),
                ConvNorm(2 * width, width, 1, activation=None),
            )
            for _ in range(2)
        )
        self.attention = nn.Sequential(*(RelativeAttention(width, 16) for _ in range(2)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv in self.convs:
            x = x + conv(x)
        x = nn.functional.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        return self.head(self.attention(x).mean(1))


MIXERS = [
    of_images("convolution mixer", ConvMixer),
    of_images("MLP mixer", lambda: OverPatches(MixerBlock)),
    of_images("affine MLP (ResMLP)", lambda: OverPatches(AffineBlock)),
    of_images("gated MLP", lambda: OverPatches(SpatialGateBlock)),
    of_images("mixture of experts", lambda: OverPatches(AttentiveExperts)),
    of_images("stochastic depth transformer", VisionTransformer),
    of_images("pyramid transformer", PyramidTransformer),
    of_images("convolution, then attention", ConvolutionThenAttention),
]
