"""Dropout whose mask depends on where and when it is drawn, not on the global random state."""

import hashlib

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero elements with probability `probability` in training and scale up the others.

    With a stream (see `set_dropout_stream`) each pass draws the same mask, so that a pass can be
    run again. Without a stream every pass draws a new mask, numbered by an internal counter.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.stream: tuple[int, ...] | None = None
        self._build_seed = torch.initial_seed()
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop elements of a float tensor of any shape."""
        if not self.training:
            return inputs
        if self.stream is None:
            key: tuple[int, ...] = (self._build_seed, self.passes)
            self.passes += 1
        else:
            key = self.stream
        generator = torch.Generator(device=inputs.device).manual_seed(_seed_of(key))
        # A mask of bytes is all that autograd keeps: a quarter of a float mask.
        dropped = torch.empty(inputs.shape, dtype=torch.bool, device=inputs.device)
        dropped.bernoulli_(self.probability, generator=generator)
        return inputs.masked_fill(dropped, 0.0).mul_(1.0 / (1.0 - self.probability))


def set_dropout_stream(module: nn.Module, seed: int, layer_index: int, micro_batch: int) -> None:
    """Fix the dropout masks of layer `layer_index` for one micro-batch.

    From now on every `Dropout` in `module`, numbered in the order of `module.modules()`, draws the
    mask that belongs to (seed, layer_index, its number, micro_batch).
    """
    dropouts = (part for part in module.modules() if isinstance(part, Dropout))
    for number, dropout in enumerate(dropouts):
        dropout.stream = (seed, layer_index, number, micro_batch)


def _seed_of(key: tuple[int, ...]) -> int:
    # Hashed, since neighbouring seeds must not give related masks.
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
