"""Folders of image files, `class/file`, with a folder for each part or a share for testing."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape, Samples, Split
from hpc_lpm.data.held_out import split_share, test_part
from hpc_lpm.data.image_files import (
    ENDINGS,
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
from hpc_lpm.data.images import DEFAULT_SIZE, byte_moments
from hpc_lpm.data.locations import printable, reading, require_folder
from hpc_lpm.errors import InputError, closest
from hpc_lpm.identifiers import require_at_least

Broken = Literal["skip", "refuse"]
"""What becomes of image files that cannot be decoded."""

KEPT_BYTES = 2**28
"""Sets that are no larger when they are decoded are kept in memory."""

_TRAINING, _VALIDATION, _TEST = "training", "validation", "test"
_PART_FOLDERS = {
    **dict.fromkeys(("train", "training"), _TRAINING),
    **dict.fromkeys(("val", "valid", "validation"), _VALIDATION),
    **dict.fromkeys(("test", "testing"), _TEST),
}
_LEFT_BY_OTHERS = {"__MACOSX", "@eaDir"}
_HEADS = 32
"""So many files, evenly spread, tell whether images are grey."""


@dataclass(frozen=True)
class Listed:
    """The image files of one part and the class of each, as an index into `classes`."""

    paths: tuple[Path, ...]
    targets: Tensor


@dataclass(frozen=True)
class Listing:
    """What a folder of images holds; `empty` are its class folders without images."""

    classes: tuple[str, ...]
    parts: dict[str, Listed]
    empty: tuple[Path, ...]
    share: float | None


def images_files(folder: Path, *, test: str | None = None, **_options: object) -> Iterable[Path]:
    """Return the image files of all parts.

    Raises:
        InputError: if the folder has no images in class folders.
    """
    parts = _list_images(folder, test).parts.values()
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
    listing = _list_images(folder, test)
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
    listing = _list_images(folder, test)
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
    if _TEST not in parts:
        training = parts[_TRAINING]
        chosen = split_share(len(training.paths), listing.share, owner, training.targets)
        parts[_TRAINING], parts[_TEST] = (_chosen(training, rows) for rows in chosen)
    samples = loading.samples(parts)
    return Dataset(
        owner,
        DataShape("image", (form.channels, size, size), len(listing.classes)),
        samples[_TRAINING],
        samples[_TEST],
        samples.get(_VALIDATION),
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
        return _chosen(part, torch.tensor(whole, dtype=torch.int64))

    def samples(self, parts: dict[str, Listed]) -> dict[str, Samples]:
        """Return the samples of each part, normalised by the training part."""
        if self._keep:
            images = {
                name: torch.stack([self._decoded[path] for path in part.paths])
                for name, part in parts.items()
            }
            mean, std = byte_moments(images[_TRAINING])
            return {
                name: Split(images[name], part.targets, mean, std) for name, part in parts.items()
            }
        mean, std = measured_moments(parts[_TRAINING].paths, self._form)
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


def _chosen(part: Listed, rows: Tensor) -> Listed:
    return Listed(tuple(part.paths[n] for n in rows.tolist()), part.targets[rows])


def _form(listing: Listing, size: int, channels: int | None, fit: Fit) -> ImageForm:
    require_at_least("images", "size", size, 1)
    paths = listing.parts[_TRAINING].paths
    heads = [paths[n] for n in spread(len(paths), _HEADS).tolist()]
    return ImageForm(likely_channels(heads) if channels is None else channels, size, fit)


def _total(listing: Listing) -> int:
    return sum(len(part.paths) for part in listing.parts.values())


def _list_images(folder: Path, test: str | None) -> Listing:
    """List the images of all parts; without a test part `share` of the training part is meant."""
    owner = f"images:{folder}"
    require_folder(folder, "folder of images")
    held_out = test_part(owner, test, folder)
    folders = _part_folders(folder)
    if isinstance(held_out, Path):
        folders[_TEST] = require_folder(held_out, "folder of test images")
    elif held_out is not None:
        folders.pop(_TEST, None)
    elif _TEST not in folders and _VALIDATION in folders:
        folders[_TEST] = folders.pop(_VALIDATION)
    by_class = _images_by_class(folders[_TRAINING], folder)
    classes = tuple(name for name, paths in by_class.items() if paths)
    empty = [folders[_TRAINING] / name for name, paths in by_class.items() if not paths]
    if len(classes) < 2:
        raise InputError(
            f"{owner} has images in {len(classes)} class folders of {folders[_TRAINING]}, accepted "
            "are at least two: name the folder whose folders are the classes."
        )
    parts = {_TRAINING: _listed(by_class, classes)}
    for name in (_VALIDATION, _TEST):
        if name in folders:
            others = {c: p for c, p in _images_by_class(folders[name], folder).items() if p}
            _refuse_unknown(others, classes, f"the {name} part of {owner}")
            parts[name] = _listed(others, classes)
    return Listing(classes, parts, tuple(empty), held_out if isinstance(held_out, float) else None)


def _part_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each part; without a train folder it is that of the training part."""
    found: dict[str, Path] = {}
    for entry in _entries(folder):
        part = _PART_FOLDERS.get(entry.name.lower())
        if part is None or not entry.is_dir():
            continue
        if part in found:
            raise InputError(
                f"images:{folder} has two folders for its {part} part, {found[part].name} and "
                f"{entry.name}: leave one of them."
            )
        found[part] = Path(entry.path)
    return found if _TRAINING in found else {_TRAINING: folder}


def _images_by_class(folder: Path, named: Path) -> dict[str, list[Path]]:
    """Return the image files below each class folder, in the order of their names."""
    folders = [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]
    if not folders:
        loose = sum(Path(entry.name).suffix.lower() in ENDINGS for entry in _entries(folder))
        raise InputError(
            f"images:{named} has {loose} images and no class folders in {folder}: put the images "
            "of each class into a folder of its name, or choose another test part with ,test=0.2."
        )
    return {
        path.name: sorted(_images_below(path, frozenset()), key=lambda found: found.as_posix())
        for path in folders
    }


def _images_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    with reading(folder, "folder of images"):
        found = folder.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:  # a link to a folder that it lies in
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _images_below(Path(entry.path), above | {here})
        elif Path(entry.name).suffix.lower() in ENDINGS:
            yield Path(entry.path)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Return what is in a folder in the order of names, without what is hidden."""
    with reading(folder, "folder of images"), os.scandir(folder) as entries:
        shown = [entry for entry in entries if not _is_hidden(entry.name)]
    return sorted(shown, key=lambda entry: entry.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_BY_OTHERS


def _listed(by_class: dict[str, list[Path]], classes: tuple[str, ...]) -> Listed:
    pairs = [(path, n) for n, name in enumerate(classes) for path in by_class.get(name, [])]
    return Listed(tuple(path for path, _ in pairs), torch.tensor([n for _, n in pairs]).long())


def _refuse_unknown(by_class: dict[str, list[Path]], classes: tuple[str, ...], where: str) -> None:
    for name in by_class:
        if name not in classes:
            raise InputError(
                f"{where} has the class {printable(name)!r}, which has no images in the training "
                f"part{closest(name, list(classes))}: rename the folder or add training images."
            )
    if not by_class:
        raise InputError(f"{where} has no images in its class folders: add some.")
