"""Which image files of a folder belong to which part and class, in the order of their names."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hpc_lpm.data.held_out import test_part
from hpc_lpm.data.image_files import ENDINGS
from hpc_lpm.data.locations import printable, reading, require_folder
from hpc_lpm.errors import InputError, closest

TRAINING, VALIDATION, TEST = "training", "validation", "test"

_PART_FOLDERS = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
_BESIDE_PARTS = {"data", "dataset", "folder", "images", "img", "imgs", "seg", "set", "split"}
"""Words that go with the name of a part, as in training_set."""

_LEFT_BY_OTHERS = {"__MACOSX", "@eaDir"}


@dataclass(frozen=True)
class Listed:
    """The image files of one part and the class of each, as an index into `classes`."""

    paths: tuple[Path, ...]
    targets: Tensor

    def chosen(self, rows: Tensor) -> "Listed":
        """Return the files with these numbers, in this order."""
        return Listed(tuple(self.paths[n] for n in rows.tolist()), self.targets[rows])


@dataclass(frozen=True)
class Listing:
    """What a folder of images holds.

    `empty` are its class folders without images. Without a test part, `share` of the training part
    is meant, a usual one if it is None.
    """

    classes: tuple[str, ...]
    parts: dict[str, Listed]
    empty: tuple[Path, ...]
    share: float | None


def list_images(folder: Path, test: str | None) -> Listing:
    """List the images of a folder of class folders, or of one with a folder for each part.

    Args:
        folder: the folder.
        test: the option `test=` as it was typed, or None.

    Raises:
        InputError: if there are no images, fewer than two classes, or other classes in another part
            than in the training part.
    """
    owner = f"images:{folder}"
    require_folder(folder, "folder of images")
    held_out = test_part(owner, test, folder)
    folders = _part_folders(folder)
    if isinstance(held_out, Path):
        folders[TEST] = require_folder(held_out, "folder of test images")
    elif held_out is not None:
        folders.pop(TEST, None)
    elif TEST not in folders and VALIDATION in folders:
        folders[TEST] = folders.pop(VALIDATION)
    by_class = _images_by_class(folders[TRAINING], folder)
    classes = tuple(name for name, paths in by_class.items() if paths)
    empty = [folders[TRAINING] / name for name, paths in by_class.items() if not paths]
    if len(classes) < 2:
        raise InputError(
            f"{owner} has images in {len(classes)} class folders of {folders[TRAINING]}, accepted "
            f"are at least two, with files named {', '.join(sorted(ENDINGS))}: name the folder "
            "whose folders are the classes, or convert other files."
        )
    parts = {TRAINING: _listed(by_class, classes)}
    for name in (VALIDATION, TEST):
        if name in folders:
            others = {c: p for c, p in _images_by_class(folders[name], folder).items() if p}
            _refuse_unknown(others, classes, f"the {name} part of {owner}")
            parts[name] = _listed(others, classes)
    return Listing(classes, parts, tuple(empty), held_out if isinstance(held_out, float) else None)


def _part_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each part; without a train folder it is that of the training part."""
    found: dict[str, Path] = {}
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    for name in names:
        part = _PART_FOLDERS.get(name.lower())
        if part is None:
            continue
        if part in found:
            raise InputError(
                f"images:{folder} has two folders for its {part} part, {found[part].name} and "
                f"{name}: leave one of them."
            )
        found[part] = folder / name
    if TRAINING in found:
        return found
    _refuse_parts_as_classes(folder, names)
    return {TRAINING: folder}


def _refuse_parts_as_classes(folder: Path, names: list[str]) -> None:
    """Refuse folders such as train2017 and val2017, which would be taken for two classes."""
    training = [name for name in names if _meant_part(name) == TRAINING]
    others = [name for name in names if _meant_part(name) in {VALIDATION, TEST}]
    if training and others:
        train, test = folder / printable(training[0]), folder / printable(others[0])
        raise InputError(
            f"images:{folder} has folders named {train.name} and {test.name}, which are parts "
            "rather than classes, accepted for parts are train, val and test: rename them, or "
            f"write images:{train},test={test}."
        )


def _meant_part(name: str) -> str | None:
    """Return the part that the name of a folder tells which can be no class, as train2017."""
    words = [word for word in re.findall("[a-z]+", name.lower()) if word not in _BESIDE_PARTS]
    return _PART_FOLDERS.get(words[0]) if len(words) == 1 else None


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
