"""Arrays of bytes, whole numbers or numbers with a point as a network's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.images import byte_moments
from hpc_lpm.data.targets import LARGEST_NUMBER, Values
from hpc_lpm.errors import InputError

Layout = Literal["channels-first", "channels-last", "grey", "as-is"]
"""Images [n, channels, height, width], [n, height, width, channels] or [n, height, width]."""

_CHANNELS = (1, 3, 4)
_AT_ONCE = 1024


@dataclass(frozen=True)
class EncodedInputs:
    """The inputs of each part; bytes are to be normalised by `mean` and `std`."""

    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]
    mean: float = 0.0
    std: float = 1.0


def encode_inputs(
    parts: Sequence[Values], owner: str, layout: Layout | None = None
) -> EncodedInputs:
    """Encode the inputs of the training part and of the other parts in the same way.

    Bytes (uint8) are colours from 0 to 255. Other whole numbers are brought to mean 0 and deviation
    1 over the training part. Numbers with a point are taken as they are.

    Args:
        parts: inputs [n, ...] of the training part, then of the others.
        owner: the data set for messages.
        layout: how images are laid out. By default four dimensions are images whose channels, 1, 3
            or 4 of them, come first or last, and three dimensions of bytes are grey images.

    Raises:
        InputError: if inputs are no numbers, are missing or infinite, or differ in shape or type
            between the parts.
    """
    for part in parts:
        if part.dtype.kind not in "biuf":
            raise InputError(
                f"{owner} has inputs of type {part.dtype}, accepted are numbers: convert them."
            )
        if part.shape[1:] != parts[0].shape[1:]:
            raise InputError(
                f"{owner} has inputs of shape {part.shape[1:]} and {parts[0].shape[1:]} in its "
                "parts: make them equal."
            )
    if any((part.dtype == np.uint8) != (parts[0].dtype == np.uint8) for part in parts):
        raise InputError(f"{owner} has bytes in one part alone: give all parts the same type.")
    laid_out = [_laid_out(part, owner, layout) for part in parts]
    shape = tuple(laid_out[0].shape[1:])
    if parts[0].dtype == np.uint8:
        tensors = tuple(map(torch.from_numpy, laid_out))
        return EncodedInputs(shape, tensors, *byte_moments(tensors[0]))
    if parts[0].dtype.kind == "f":
        return EncodedInputs(shape, tuple(_numbers(part, owner) for part in laid_out))
    mean, std = _moments(laid_out[0])
    tensors = tuple(torch.from_numpy(((part - mean) / std).astype(np.float32)) for part in laid_out)
    return EncodedInputs(shape, tensors)


def _laid_out(array: Values, owner: str, layout: Layout | None) -> Values:
    if array.ndim == 1:
        return array[:, None]
    chosen = layout or _likely_layout(array)
    expected = {"channels-first": 4, "channels-last": 4, "grey": 3}.get(chosen, array.ndim)
    if array.ndim != expected:
        raise InputError(
            f"option 'layout' of {owner} is {chosen}, its inputs have the shape {array.shape}, "
            f"accepted are {expected} dimensions: leave the option out or correct it."
        )
    if chosen == "channels-last":
        return array.transpose(0, 3, 1, 2)
    return array[:, None] if chosen == "grey" else array


def _likely_layout(array: Values) -> Layout:
    if array.ndim == 4:
        if array.shape[1] not in _CHANNELS and array.shape[3] in _CHANNELS:
            return "channels-last"
        return "channels-first"
    return "grey" if array.ndim == 3 and array.dtype == np.uint8 else "as-is"


def _numbers(array: Values, owner: str) -> Tensor:
    for start in range(0, len(array), _AT_ONCE):
        # As training takes them, in which larger numbers would become infinite without a word.
        with np.errstate(over="ignore"):
            taken = array[start : start + _AT_ONCE].astype(np.float32, copy=False)
        if not np.isfinite(taken).all():
            raise InputError(
                f"{owner} has inputs that are missing or infinite, from sample {start} on, in "
                f"float32, which holds numbers up to {LARGEST_NUMBER}: leave these samples out or "
                "replace the values."
            )
    return torch.from_numpy(array)


def _moments(array: Values) -> tuple[float, float]:
    numbers = array.astype(np.float64)
    return float(numbers.mean()), float(numbers.std()) or 1.0
