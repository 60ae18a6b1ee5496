"""Image files of any common kind, decoded to bytes of one size and one number of channels.

Pillow is imported where it is needed: no rank should wait for it that has no images to decode.
"""

import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.images import byte_moments
from hpc_lpm.data.moments import Moments
from hpc_lpm.data.samples import Draws, Samples, Split
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "pad", "stretch"]
"""How an image becomes a square: its middle, all of it on black, or out of proportion."""

ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "bmp", "gif", "tif", "tiff", "webp"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif"),
    )
)
"""What names of image files end in, in small or capital letters."""

_GREY = {"1", "L", "LA", "La", "I", "F"}
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\x3b"}
_TAIL_BYTES = 4096
_MOST_PIXELS = 2**26
"""A small file can claim more pixels than memory holds; photographs have fewer than these."""
_MEASURED = 1024
"""So many images tell mean and deviation of a set that is not kept in memory."""


class BrokenImageError(Exception):
    """An image file that cannot be decoded; the message is the reason in a few words."""


@dataclass(frozen=True)
class ImageForm:
    """What images become: bytes [channels, size, size]; see `Fit`."""

    channels: int
    size: int
    fit: Fit

    @property
    def bytes(self) -> int:
        """The size of an image in memory."""
        return self.channels * self.size * self.size


class ImageFiles(Samples):
    """Images that are decoded whenever they are asked for, with the classes as targets.

    Args:
        paths: the files.
        targets: the class of each, int64 [n].
        form: what each is decoded to.
        mean: of the training images scaled to 0..1, as a number or a tensor [channels, 1, 1].
        std: their standard deviation, likewise.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor,
        form: ImageForm,
        mean: float | Tensor,
        std: float | Tensor,
    ) -> None:
        self._paths = paths
        self._targets = targets
        self._form = form
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._paths)

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Decode these images and return them normalised, float32 [n, channels, size, size].

        Raises:
            InputError: if one of them cannot be decoded.
        """
        return self._decoded(indices).inputs(torch.arange(len(indices)))

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Return the classes of these images; no file is read for it."""
        return self._targets[indices]

    @property
    def moments(self) -> Moments | None:
        """What the images are normalised by."""
        return Moments.by(self._mean, self._std)

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel over images evenly spread over the set."""
        return self._decoded(spread(len(self), _MEASURED)).channel_statistics()

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> Samples:
        """Return the same images, normalised by these means and deviations, one a channel."""
        # A channel of one colour has no deviation to divide by.
        deviations = torch.tensor([value or 1.0 for value in std]).view(-1, 1, 1)
        means = torch.tensor(mean).view(-1, 1, 1)
        return ImageFiles(self._paths, self._targets, self._form, means, deviations)

    def _decoded(self, indices: Tensor) -> Split:
        images = [_decoded_for_training(self._paths[n], self._form) for n in indices.tolist()]
        return Split(torch.stack(images), self._targets[indices], self._mean, self._std)


def measured_moments(paths: Sequence[Path], form: ImageForm) -> tuple[float, float]:
    """Return mean and deviation over images evenly spread over the files, scaled to 0..1.

    Raises:
        InputError: if one of them cannot be decoded.
    """
    some = [paths[n] for n in spread(len(paths), _MEASURED).tolist()]
    return byte_moments(torch.stack([_decoded_for_training(path, form) for path in some]))


def spread(count: int, most: int) -> Tensor:
    """Return at most `most` of the indices from 0 to count - 1, evenly spread."""
    return torch.arange(min(count, most)) * count // min(count, most)


def decode(path: Path, form: ImageForm) -> Tensor:
    """Decode an image file to uint8 [channels, size, size].

    It is turned as its EXIF data say. Transparent pixels show white unless there are 4 channels.
    Of 16 bits the upper 8 are kept; of animations and documents the first image.

    Raises:
        BrokenImageError: if the file is empty, damaged, or no such image.
    """
    from PIL import Image, ImageOps

    def square(image: Image.Image) -> Image.Image:
        size = (form.size, form.size)
        if form.fit == "stretch":
            return image.resize(size, Image.Resampling.BILINEAR)
        fitted = ImageOps.fit if form.fit == "crop" else ImageOps.pad
        return fitted(image, size, method=Image.Resampling.BILINEAR)

    _require_content(path)
    try:
        # Large images and unusual data are warned of on every rank; those that fail are named.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            _require_size(image)
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(square(_with_channels(image, form.channels)))
    except BrokenImageError:
        raise
    except Exception as error:  # decoders raise many types for damaged data
        raise BrokenImageError(_reason(error)) from None
    return torch.from_numpy(pixels.reshape(form.size, form.size, -1)).permute(2, 0, 1).contiguous()


def check_whole(path: Path) -> None:
    """Check that a file is a whole image: its head, and all of it if its end is not as it should.

    Raises:
        BrokenImageError: if it is not.
    """
    from PIL import Image

    _require_content(path)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            ending = _LAST_BYTES.get(str(image.format))
            _require_size(image)
            if ending is None or ending not in _tail(path):
                image.load()
    except Exception as error:
        raise BrokenImageError(_reason(error)) from None


def likely_channels(paths: Sequence[Path]) -> int:
    """Return 1 if all of these files are grey images, else 3; their heads alone are read."""
    from PIL import Image

    for path in paths:
        try:
            _require_content(path)
            with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
                if image.mode.partition(";")[0] not in _GREY:
                    return 3
        except Exception:  # a broken file tells nothing, and is named when it is loaded
            continue
    return 1


def _with_channels(image: "Image", channels: int) -> "Image":
    image = _in_eight_bits(image)
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        return _without_transparency(image.convert("RGBA"), channels)
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])


def _in_eight_bits(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "F":
        raise BrokenImageError("has pixels with a point, accepted are whole numbers")
    if image.mode == "I" or image.mode.startswith("I;16"):
        upper = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(upper.clip(0, 255).astype(np.uint8))
    return image


def _without_transparency(image: "Image", channels: int) -> "Image":
    from PIL import Image

    if channels == 4:
        return image
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB" if channels == 3 else "L")


def _decoded_for_training(path: Path, form: ImageForm) -> Tensor:
    try:
        return decode(path, form)
    except BrokenImageError as error:
        raise InputError(
            f"image {path} cannot be decoded ({error}): mend or remove it, and run again."
        ) from None


def _require_content(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise BrokenImageError(error.strerror or "cannot be read") from None
    if not stat.S_ISREG(found.st_mode):  # a pipe would block
        raise BrokenImageError("is no regular file")
    if not found.st_size:
        raise BrokenImageError("is empty")


def _require_size(image: "Image") -> None:
    pixels = image.width * image.height
    if pixels > _MOST_PIXELS:
        raise BrokenImageError(f"has {pixels:,} pixels, accepted are up to {_MOST_PIXELS:,}")


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL_BYTES))
        return stream.read()


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "is no image"
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__
