"""Pieces that several architectures of the zoo are made of."""

import torch
from torch import Tensor, nn

from tests.models.zoo.specimen import CLASSES


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and an activation in place, unless there is none."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        padding = dilation * (size // 2)
        self.conv = nn.Conv2d(
            channels, outputs, size, stride, padding, dilation, groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = activation(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class Head(nn.Module):
    """Global average pooling and a linear classifier."""

    def __init__(self, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(torch.flatten(self.pool(x), 1)))


class ChannelGate(nn.Module):
    """Squeeze and excitation: every channel times a factor that the whole image decides."""

    def __init__(self, channels: int, reduced: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(torch.relu(self.reduce(squeezed))))


class DropPath(nn.Module):
    """Stochastic depth: in training the branch of a sample is left out by chance."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(kept)
        return x * mask / kept


class Attention(nn.Module):
    """Multi-head self-attention over [n, length, width], written out."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, length, width = x.shape
        joined = self.query_key_value(x).reshape(samples, length, 3, self.heads, -1)
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.dropout(
            (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        )
        return self.project((weights @ value).transpose(1, 2).reshape(samples, length, width))


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )


class Encoder(nn.Module):
    """A block of a transformer, normalised before each branch."""

    def __init__(
        self, width: int, heads: int, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, 2 * width, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.feed_forward(self.norm2(x)))
