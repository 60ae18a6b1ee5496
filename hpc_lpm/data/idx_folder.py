"""Folders of IDX files, as MNIST, KMNIST, EMNIST and Fashion-MNIST are published."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.held_out import split_share, test_part
from hpc_lpm.data.idx import read_idx, read_idx_sizes
from hpc_lpm.data.images import DEFAULT_SIZE, image_dataset, pad_to_size
from hpc_lpm.data.locations import reading, require_folder
from hpc_lpm.data.targets import encode_targets
from hpc_lpm.errors import InputError, closest

_FILE = re.compile(
    r"(?:(?P<split>.+)[-_.])?(?P<part>train|t10k|test)[-_.](?P<what>images|labels)"
    r"[-_.]idx[13][-_.]ubyte(?:\.gz)?",
    re.IGNORECASE,
)
_FAMILY = "emnist"
_SUBFOLDERS = ("raw", "gzip")
"""Where torchvision and EMNIST's archive put the files."""


@dataclass(frozen=True)
class IdxPart:
    """The images of a part and their labels."""

    images: Path
    labels: Path

    def read(self) -> tuple[Tensor, Tensor]:
        """Return uint8 images [n, 1, height, width] and int64 labels [n].

        Raises:
            InputError: if a file is broken or their numbers differ.
        """
        images = read_idx(self.images, dimensions=3).unsqueeze(1)
        labels = read_idx(self.labels, dimensions=1).to(torch.int64)
        if len(labels) != len(images) or not len(labels):
            raise InputError(
                f"{self.labels} holds {len(labels)} labels for {len(images)} images: fetch both "
                "again."
            )
        return images, labels


@dataclass(frozen=True)
class IdxFiles:
    """The files of one data set; `split` is what their names begin with, such as emnist-letters."""

    split: str
    train: IdxPart
    test: IdxPart | None

    def paths(self) -> list[Path]:
        """Return the paths of all files, images before labels."""
        parts = [self.train] if self.test is None else [self.train, self.test]
        return [path for part in parts for path in (part.images, part.labels)]


def find_idx_files(folder: Path, split: str | None = None) -> IdxFiles | None:
    """Find the files of a data set in a folder, or in the one named raw or gzip inside it.

    Names may have dots for dashes, end in .gz or not, and begin with the name of a split.

    Args:
        folder: the folder.
        split: which of several splits, with or without `emnist-`; None where there is one.

    Returns:
        The files, or None if the folder has no training images with labels.

    Raises:
        InputError: if there are several splits and `split` names none of them.
    """
    for place in (folder, *(folder / name for name in _SUBFOLDERS)):
        splits = _splits_in(place) if place.is_dir() else {}
        if splits:
            return splits[_chosen(splits, split, place)]
    return None


def idx_files(
    folder: Path, *, split: str | None = None, test: str | None = None, **_options: object
) -> Iterable[Path]:
    """Return the files of the data set, and those of its test part if `test` is a folder.

    Raises:
        InputError: if they are missing or `split` does not tell them apart.
    """
    found = _required(folder, split)
    held_out = test_part(_owner(folder), test, folder)
    if isinstance(held_out, Path):
        other = _required(held_out, split)
        return [found.train.images, found.train.labels, *other.paths()]
    return found.paths()


def idx_shape(
    folder: Path,
    *,
    size: int | None = None,
    split: str | None = None,
    transpose: bool | None = None,
    test: str | None = None,
) -> DataShape:
    """Return the shape; of the images, the head of their file alone is read.

    Raises:
        InputError: if files are missing or broken, or `split` does not tell them apart.
    """
    found = _required(folder, split)
    height, width = read_idx_sizes(found.train.images, dimensions=3)[1:]
    side = size or max(DEFAULT_SIZE, height, width)
    labels = read_idx(found.train.labels, dimensions=1)
    return DataShape("image", (1, side, side), len(torch.unique(labels)))


def load_idx(
    folder: Path,
    *,
    size: int | None = None,
    split: str | None = None,
    transpose: bool | None = None,
    test: str | None = None,
) -> Dataset:
    """Load grey images and their labels, which are numbered from 0 in ascending order.

    Args:
        folder: the folder of the files.
        size: pixels a side, to which images are padded with zeros; 32, or more for larger images.
        split: which of EMNIST's splits, such as letters.
        transpose: exchange rows and columns; by default of files whose names begin with emnist.
        test: a share of the training images, or the folder of other images; by default the files
            named t10k or test, or a fifth of the images if there are none.

    Raises:
        InputError: if files are missing or broken, `split` does not tell them apart, or the test
            part has classes that the training part lacks.
    """
    owner = _owner(folder)
    found = _required(folder, split)
    held_out = test_part(owner, test, folder)
    images, labels = found.train.read()
    if isinstance(held_out, Path):
        other = _required(held_out, split)
        tested: tuple[Tensor, Tensor] | None = (other.test or other.train).read()
    else:
        tested = found.test.read() if found.test and held_out is None else None
    parts = [labels.numpy()] + ([] if tested is None else [tested[1].numpy()])
    targets = encode_targets(parts, owner, "classes")
    if tested is None:
        share = held_out if isinstance(held_out, float) else None
        train, test_rows = split_share(len(images), share, owner, targets.parts[0])
        chosen = [(images[rows], targets.parts[0][rows]) for rows in (train, test_rows)]
    else:
        chosen = [(images, targets.parts[0]), (tested[0], targets.parts[1])]
    turned = found.split.lower().startswith(_FAMILY) if transpose is None else transpose
    side = size or max(DEFAULT_SIZE, *images.shape[2:])
    padded = [
        (pad_to_size(part.transpose(2, 3) if turned else part, side, owner), labels)
        for part, labels in chosen
    ]
    made = image_dataset(owner, padded[0], padded[1], targets.classes)
    return replace(made, class_names=targets.names)


def _required(folder: Path, split: str | None) -> IdxFiles:
    require_folder(folder, "folder of IDX files")
    found = find_idx_files(folder, split)
    if found is None:
        raise InputError(
            f"{_owner(folder)} has no training images with labels, accepted are files such as "
            "train-images-idx3-ubyte and train-labels-idx1-ubyte, with .gz or without: name the "
            "folder that holds them."
        )
    return found


def _splits_in(folder: Path) -> dict[str, IdxFiles]:
    """Return the data sets in a folder by what their names begin with, lower case."""
    files: dict[tuple[str, str, str], Path] = {}
    with reading(folder, "folder"):
        # Of two forms of a file the one that is not compressed comes first and is taken.
        for path in sorted(folder.iterdir()):
            match = _FILE.fullmatch(path.name)
            if match and path.is_file():
                part = "train" if match["part"].lower() == "train" else "test"
                key = ((match["split"] or "").lower(), part, match["what"].lower())
                files.setdefault(key, path)
    found = {}
    for split in dict.fromkeys(split for split, _, _ in files):
        parts = {
            part: IdxPart(files[split, part, "images"], files[split, part, "labels"])
            for part in ("train", "test")
            if {(split, part, "images"), (split, part, "labels")} <= files.keys()
        }
        if "train" in parts:
            found[split] = IdxFiles(split, parts["train"], parts.get("test"))
    return found


def _chosen(splits: dict[str, IdxFiles], split: str | None, folder: Path) -> str:
    if split is None and len(splits) == 1:
        return next(iter(splits))
    named = [
        name for name in splits if split and name in {split.lower(), f"{_FAMILY}-{split}".lower()}
    ]
    if named:
        return named[0]
    names = [name.removeprefix(f"{_FAMILY}-") for name in splits]
    hint = closest(split, names) if split else ""
    raise InputError(
        f"folder {folder} holds the splits {', '.join(names)}, option 'split' is "
        f"{split or 'not given'}{hint}: name one of them with ,split=."
    )


def _owner(folder: Path) -> str:
    return f"idx:{folder}"
