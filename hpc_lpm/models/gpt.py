"""A small decoder-only transformer (GPT) with two layers in each block.

Initial weights are large enough for every direction to be flat from the start: a pipeline whose
weights lag cannot follow steep ones (docs/explanation/accuracy.md). In front of a norm, an
embedding of small numbers would make the loss as steep as it is small.
"""

from functools import partial

import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import NEXT_TOKEN, DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import require_at_least
from hpc_lpm.models.layered import Layer, LayeredModel, Tie

_BLOCK_GAIN = 0.7
"""Standard deviation of a block's weights times the square root of the model's width."""
_EMBEDDING_STD = 1.0
_HEAD_STD = 0.02
"""That of the last projection, which makes all tokens about equally likely."""


class Embedding(nn.Module):
    """Sum of token and learned position embedding: [n, sequence] to [n, sequence, width].

    `std` is the standard deviation of both.
    """

    def __init__(
        self, vocabulary: int, sequence: int, width: int, dropout: float, std: float
    ) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(vocabulary, width) * std)
        self.position = nn.Parameter(torch.randn(sequence, width) * std)
        self.dropout = _dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed the tokens; the sequence may be shorter than the layer was built for."""
        embedded = nn.functional.embedding(tokens, self.token) + self.position[: tokens.shape[1]]
        return self.dropout(embedded)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """x + projection(causal attention(norm(x))), [n, sequence, width] in and out."""

    def __init__(self, width: int, heads: int, dropout: float, blocks: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        std = _BLOCK_GAIN * width**-0.5
        self.query_key_value = _linear(width, 3 * width, std)
        self.projection = _linear(width, width, std * (2 * blocks) ** -0.5)
        self.dropout = _dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Let every position attend to itself and to the positions before it."""
        samples, sequence, width = inputs.shape
        joined = self.query_key_value(self.norm(inputs))
        query, key, value = (
            part.view(samples, sequence, self.heads, width // self.heads).transpose(1, 2)
            for part in joined.chunk(3, dim=-1)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected = self.projection(attended.transpose(1, 2).reshape(samples, sequence, width))
        return inputs + self.dropout(projected)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """x + down(gelu(up(norm(x)))), [n, sequence, width] in and out, four times as wide inside."""

    def __init__(self, width: int, dropout: float, blocks: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        std = _BLOCK_GAIN * width**-0.5
        self.up = _linear(width, 4 * width, std)
        self.down = _linear(4 * width, width, std * (2 * blocks) ** -0.5)
        self.dropout = _dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Transform every position on its own."""
        inner = nn.functional.gelu(self.up(self.norm(inputs)), approximate="tanh")
        return inputs + self.dropout(self.down(inner))  # type: ignore[no-any-return]


def gpt(
    shape: DataShape,
    *,
    layers: int = 4,
    width: int = 128,
    heads: int = 4,
    dropout: float = 0.0,
    tied: bool = False,
) -> LayeredModel:
    """Build a decoder of `layers` blocks that predicts the next token at every position.

    Dropout acts on the embedding and on both branches of each block. If `tied`, the last projection
    and the embedding of tokens are one matrix.

    Raises:
        InputError: if the data are not text or have other targets than the next token, a size is
            below 1, `heads` does not divide `width` or `dropout` is not in [0, 1).
    """
    if shape.kind != "text":
        raise InputError(
            f"gpt takes text, the data set holds {shape.kind} of shape {shape.input_shape}: "
            "choose text:PATH or another model."
        )
    if shape.task != NEXT_TOKEN:
        raise InputError(
            f"gpt predicts the next token, the task of the data set is {shape.task!r}: choose "
            "another model or data set."
        )
    for option, value in (("layers", layers), ("width", width), ("heads", heads)):
        require_at_least("gpt", option, value, 1)
    if width % heads:
        raise InputError(
            f"option 'heads' of gpt is {heads}, accepted are divisors of the width {width}."
        )
    if not 0 <= dropout < 1:
        raise InputError(f"option 'dropout' of gpt is {dropout}, accepted is 0 <= dropout < 1.")
    # A tied embedding is the last projection too.
    std = _HEAD_STD if tied else _EMBEDDING_STD
    embedding = partial(Embedding, shape.vocabulary, shape.input_shape[0], width, dropout, std)
    chain = [Layer("embedding", embedding)]
    for block in range(layers):
        attention = partial(Attention, width, heads, dropout, layers)
        feed_forward = partial(FeedForward, width, dropout, layers)
        chain.append(Layer(f"block{block}.attention", attention))
        chain.append(Layer(f"block{block}.feed_forward", feed_forward))
    chain.append(Layer("norm", partial(nn.LayerNorm, width)))
    chain.append(Layer("head", partial(_linear, width, shape.classes, _HEAD_STD)))
    ties = (Tie(0, "token", len(chain) - 1, "weight"),) if tied else ()
    return LayeredModel("gpt", tuple(chain), ties=ties)


def _linear(in_features: int, out_features: int, std: float) -> nn.Linear:
    """Build a linear layer; those that end residual branches get a `std` that these divide up."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def _dropout(probability: float) -> nn.Module:
    return nn.Dropout(probability) if probability else nn.Identity()
