"""Random changes of training images: the same in every strategy, on every rank, in every order."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.samples import DerivedSamples, Draws, Samples
from hpc_lpm.errors import InputError

_ROWS, _COLUMNS, _FLIPS = range(3)
_PIXELS = re.compile("[0-9]{1,18}")


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed: shifted by up to `crop` pixels each way, and mirrored.

    A shifted image is filled up with zeros, the mean colour where images are normalised.
    """

    crop: int = 0
    flip: bool = False

    @staticmethod
    def parse(text: str) -> "Augmentation":
        """Read a text such as `crop=4,flip`.

        Raises:
            InputError: if it has any other part.
        """
        crop, flip = 0, False
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            if name == "flip" and not value:
                flip = True
            elif name == "crop" and _PIXELS.fullmatch(value) and int(value):
                crop = int(value)
            else:
                raise InputError(
                    f"--augment has the part {part!r}, accepted are crop=PIXELS and flip, "
                    "separated by a comma."
                )
        return Augmentation(crop, flip)

    def check(self, dataset: Dataset) -> None:
        """Check that the data are images that can be changed so.

        Raises:
            InputError: if they are not, or are smaller than the shift.
        """
        shape = dataset.shape
        if shape.kind != "image" or len(shape.input_shape) != 3:
            raise InputError(
                f"--augment changes images (channels, height, width), data set {dataset.name} "
                f"holds {shape.kind} of shape {shape.input_shape}: leave it out."
            )
        if self.crop >= min(shape.input_shape[1:]):
            raise InputError(
                f"--augment crop={self.crop} is no smaller than the images of {dataset.name}, "
                f"which have {shape.input_shape[1]}x{shape.input_shape[2]} pixels: shift by fewer."
            )

    def applied(self, images: Tensor, indices: Tensor, draws: Draws) -> Tensor:
        """Return the changed images [n, channels, height, width] of samples with these indices."""
        height, width = images.shape[-2:]
        changed = images
        if self.crop:
            padded = torch.nn.functional.pad(images, [self.crop] * 4)
            positions = 2 * self.crop + 1
            rows = drawn_numbers(draws, indices, _ROWS) % positions
            columns = drawn_numbers(draws, indices, _COLUMNS) % positions
            places = zip(padded, rows.tolist(), columns.tolist(), strict=True)
            shifted = [image[:, y : y + height, x : x + width] for image, y, x in places]
            changed = torch.stack(shifted)
        if self.flip:
            flipped = torch.from_numpy((drawn_numbers(draws, indices, _FLIPS) % 2).astype(bool))
            changed = torch.where(flipped.view(-1, 1, 1, 1), changed.flip(-1), changed)
        return changed


class AugmentedSamples(DerivedSamples):
    """Training images that are changed at random each time they are loaded in training."""

    def __init__(self, samples: Samples, augmentation: Augmentation) -> None:
        super().__init__(samples)
        self._augmentation = augmentation

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return these images, changed if `draws` are given."""
        images = super().inputs(indices, draws)
        return images if draws is None else self._augmentation.applied(images, indices, draws)


def drawn_numbers(draws: Draws, indices: Tensor, purpose: int) -> "np.ndarray":
    """Return a random number, uint64 [n], for each sample: a function of (draws, index, purpose).

    It is the finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number
    generators, 2014), applied once for each part of the key.
    """
    numbers = np.full(len(indices), purpose, dtype=np.uint64)
    for part in (draws.seed, draws.epoch, indices.numpy()):
        with np.errstate(over="ignore"):
            numbers = _mixed(numbers + np.asarray(part).astype(np.uint64))
    return numbers


def _mixed(numbers: "np.ndarray") -> "np.ndarray":
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
