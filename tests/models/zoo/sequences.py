"""Networks for texts and pairs: recurrent, convolutional and with shared parts."""

import torch
from torch import Tensor, nn

from tests.models.zoo.parts import ConvNorm, Encoder
from tests.models.zoo.specimen import (
    CLASSES,
    SEQUENCE,
    VOCABULARY,
    Specimen,
    class_loss,
    images,
    labels,
    of_next_tokens,
    of_texts,
)

WIDTH = 16


class Recurrent(nn.Module):
    """An embedding, two recurrent layers with dropout between them, and a classifier."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], *, both_ways: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.recurrent = kind(
            WIDTH, WIDTH, num_layers=2, batch_first=True, dropout=0.2, bidirectional=both_ways
        )
        self.norm = nn.LayerNorm(WIDTH * (2 if both_ways else 1))
        self.classifier = nn.Linear(WIDTH * (2 if both_ways else 1), CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        outputs, _ = self.recurrent(self.embedding(ids))
        return self.classifier(self.norm(outputs[:, -1]))


class Causal(nn.Module):
    """Two dilated convolutions that see the past alone, with a shortcut and weight norm."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.padding = 2 * dilation
        self.conv1 = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(WIDTH, WIDTH, 3, dilation=dilation)
        )
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, dilation=dilation)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        pad = nn.functional.pad
        inner = self.dropout(torch.relu(self.conv1(pad(x, (self.padding, 0)))))
        return torch.relu(x + self.conv2(pad(inner, (self.padding, 0))))


class TemporalConvolution(nn.Module):
    """Convolutions over time whose reach doubles from block to block; predicts every token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Causal(2**number) for number in range(4))
        self.last = nn.Conv1d(WIDTH, VOCABULARY, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.last(x).transpose(1, 2)


class Siamese(nn.Module):
    """One encoder for both images of a pair, and a classifier of their difference."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            ConvNorm(3, 8, stride=2),
            ConvNorm(8, 16, stride=2),
            nn.Flatten(),
            nn.Linear(16 * 8 * 8, 24),
        )
        self.compare = nn.Sequential(nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, CLASSES))

    def forward(self, pair: Tensor) -> Tensor:
        left, right = pair.unbind(1)
        one, other = self.encoder(left), self.encoder(right)
        return self.compare(torch.cat(((one - other).abs(), one * other), dim=1))


class SharedEmbedding(nn.Module):
    """A small decoder whose last projection is the embedding, which it scales."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=WIDTH**-0.5)
        self.positions = nn.Embedding(SEQUENCE, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 2, 2 * WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        places = torch.arange(length, device=ids.device)
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=ids.device)
        x = self.embedding(ids) * WIDTH**0.5 + self.positions(places)
        x = self.blocks(x, mask=mask, is_causal=True)
        return nn.functional.linear(x, self.embedding.weight, self.bias)


class Recycled(nn.Module):
    """One block of a transformer applied over and over."""

    def __init__(self, times: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.block = Encoder(WIDTH, 2, dropout=0.1)
        self.times = times
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for _ in range(self.times):
            x = self.block(x)
        return self.classifier(x.amax(1))


def _pairs(samples: int) -> Tensor:
    return images(2 * samples).view(samples, 2, 3, 32, 32)


SEQUENCES = [
    of_texts("long short-term memory", lambda: Recurrent(nn.LSTM, both_ways=False)),
    of_texts("gated recurrent units", lambda: Recurrent(nn.GRU, both_ways=True)),
    of_next_tokens("temporal convolution", TemporalConvolution, "next token"),
    of_next_tokens("shared embedding", SharedEmbedding, "next token"),
    of_texts("recycled block", Recycled),
    Specimen("siamese", "pair", Siamese, _pairs, labels, class_loss),
]
