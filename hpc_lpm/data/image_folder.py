"""Folders of image files, `class/file`, with a folder for each part or a share for testing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.held_out import split_share
from hpc_lpm.data.image_files import (
    BrokenImageError,
    Fit,
    ImageFiles,
    ImageForm,
    check_whole,
    decode,
    likely_channels,
    measured_moments,
    spread,
)
from hpc_lpm.data.image_listing import TEST, TRAINING, VALIDATION, Listed, Listing, list_images
from hpc_lpm.data.images import DEFAULT_SIZE, byte_moments
from hpc_lpm.data.locations import printable
from hpc_lpm.data.samples import Samples, Split
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import require_at_least

Broken = Literal["skip", "refuse"]
"""What becomes of image files that cannot be decoded."""

KEPT_BYTES = 2**28
"""Sets that are no larger when they are decoded are kept in memory."""

_HEADS = 32
"""So many files, evenly spread, tell whether images are grey."""


def images_files(folder: Path, *, test: str | None = None, **_options: object) -> Iterable[Path]:
    """Return the image files of all parts.

    Raises:
        InputError: if the folder has no images in class folders.
    """
    parts = list_images(folder, test).parts.values()
    return [path for part in parts for path in part.paths]


def images_shape(
    folder: Path,
    *,
    size: int = DEFAULT_SIZE,
    channels: Literal[1, 3, 4] | None = None,
    fit: Fit = "crop",
    test: str | None = None,
    broken: Broken = "skip",
) -> DataShape:
    """Return the shape; of a few images the head is read.

    Raises:
        InputError: if the folder has no images in class folders, or `size` is below 1.
    """
    listing = list_images(folder, test)
    form = _form(listing, size, channels, fit)
    return DataShape("image", (form.channels, size, size), len(listing.classes))


def load_images(
    folder: Path,
    *,
    size: int = DEFAULT_SIZE,
    channels: Literal[1, 3, 4] | None = None,
    fit: Fit = "crop",
    test: str | None = None,
    broken: Broken = "skip",
) -> Dataset:
    """Load a folder of images whose class is the name of the folder that each lies in.

    The folder holds class folders, or train and test folders (and val) that hold them. Without a
    test folder the validation folder is the test part, or else a fifth of the images of each class.
    Class folders may have folders of their own; links are followed; hidden files and files that are
    not named like images are ignored. Classes are numbered in the order of their names.

    Sets of up to 256 MiB when they are decoded are kept in memory. Of larger ones the files' heads
    and ends are checked, each image is decoded whenever it is needed, and mean and deviation are
    those of 1,024 training images.

    Args:
        folder: the folder.
        size: pixels a side.
        channels: 1 (grey), 3 (red, green, blue) or 4 (and opacity); by default 1 if the images are
            grey, else 3.
        fit: "crop" the middle of each image after its shorter side is scaled to `size`, "pad" it
            with black after its longer side is, or "stretch" it.
        test: a share of the training images, or another folder of class folders.
        broken: "skip" files that cannot be decoded, which are named, or "refuse" them.

    Raises:
        InputError: if there are no images, fewer than two classes, other classes in another part,
            or broken files that are refused.
    """
    listing = list_images(folder, test)
    form = _form(listing, size, channels, fit)
    owner = f"images:{folder}"
    loading = _Loading(form, keep=_total(listing) * form.bytes <= KEPT_BYTES)
    parts = {name: loading.checked(part) for name, part in listing.parts.items()}
    if broken == "refuse" and loading.broken:
        raise InputError(
            f"{owner} has {len(loading.broken)} broken files, such as {loading.broken[0]}: mend or "
            "remove them, or leave them out with ,broken=skip."
        )
    for name, part in parts.items():
        if not part.paths:
            raise InputError(
                f"the {name} part of {owner} has no whole image, such as {loading.broken[0]}: name "
                "a folder that has some."
            )
    if TEST not in parts:
        training = parts[TRAINING]
        chosen = split_share(len(training.paths), listing.share, owner, training.targets)
        parts[TRAINING], parts[TEST] = map(training.chosen, chosen)
    samples = loading.samples(parts)
    return Dataset(
        owner,
        DataShape("image", (form.channels, size, size), len(listing.classes)),
        samples[TRAINING],
        samples[TEST],
        samples.get(VALIDATION),
        class_names=tuple(map(printable, listing.classes)),
        skipped=(
            *(f"{printable(path)} (a class folder without images)" for path in listing.empty),
            *loading.broken,
        ),
    )


class _Loading:
    """Decodes or checks files, and remembers which are broken."""

    def __init__(self, form: ImageForm, *, keep: bool) -> None:
        self._form = form
        self._keep = keep
        self._decoded: dict[Path, Tensor] = {}
        self.broken: list[str] = []

    def checked(self, part: Listed) -> Listed:
        """Return the files of a part that are whole images."""
        whole = [n for n, path in enumerate(part.paths) if self._is_whole(path)]
        return part.chosen(torch.tensor(whole, dtype=torch.int64))

    def samples(self, parts: dict[str, Listed]) -> dict[str, Samples]:
        """Return the samples of each part, normalised by the training part."""
        if self._keep:
            images = {
                name: torch.stack([self._decoded[path] for path in part.paths])
                for name, part in parts.items()
            }
            mean, std = byte_moments(images[TRAINING])
            return {
                name: Split(images[name], part.targets, mean, std) for name, part in parts.items()
            }
        mean, std = measured_moments(parts[TRAINING].paths, self._form)
        return {
            name: ImageFiles(part.paths, part.targets, self._form, mean, std)
            for name, part in parts.items()
        }

    def _is_whole(self, path: Path) -> bool:
        try:
            if self._keep:
                self._decoded[path] = decode(path, self._form)
            else:
                check_whole(path)
        except BrokenImageError as error:
            self.broken.append(f"{printable(path)} ({error})")
            return False
        return True


def _form(listing: Listing, size: int, channels: int | None, fit: Fit) -> ImageForm:
    require_at_least("images", "size", size, 1)
    paths = listing.parts[TRAINING].paths
    heads = [paths[n] for n in spread(len(paths), _HEADS).tolist()]
    return ImageForm(likely_channels(heads) if channels is None else channels, size, fit)


def _total(listing: Listing) -> int:
    return sum(len(part.paths) for part in listing.parts.values())
