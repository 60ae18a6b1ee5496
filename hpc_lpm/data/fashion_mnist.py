"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images of clothing."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.idx import read_idx
from hpc_lpm.data.images import DEFAULT_SIZE, image_dataset, pad_to_size
from hpc_lpm.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

_CLASSES = 10


def fashion_mnist_shape(_: Path | None, *, size: int = DEFAULT_SIZE) -> DataShape:
    """Return the shape without loading."""
    return DataShape("image", (1, size, size), _CLASSES)


def fashion_mnist_files(data_dir: Path | None, **_options: object) -> Iterable[Path]:
    """Return the four IDX files.

    Raises:
        InputError: if no folder has them.
    """
    folder = _find_folder(data_dir)
    parts = ("train", "t10k")
    return [path for part in parts for path in (_images(folder, part), _labels(folder, part))]


def load_fashion_mnist(data_dir: Path | None, *, size: int = DEFAULT_SIZE) -> Dataset:
    """Load the published split, with images padded from 28x28 to `size` x `size` pixels.

    The four IDX files are searched for in `data_dir`, then where the Debian package puts them.

    Raises:
        InputError: if neither folder has the files, or one of them is broken.
    """
    folder = _find_folder(data_dir)
    return image_dataset(
        "fashion-mnist",
        _read_part(folder, "train", size),
        _read_part(folder, "t10k", size),
        _CLASSES,
    )


def _find_folder(data_dir: Path | None) -> Path:
    folders = [folder for folder in (data_dir, DEBIAN_FOLDER) if folder is not None]
    for folder in folders:
        if _images(folder, "train").is_file():
            return folder
    raise InputError(
        f"fashion-mnist has no {_images(Path(), 'train')} in {' or '.join(map(str, folders))}: "
        "name the folder of its four IDX files (*.gz) with --data-dir, or install Debian's "
        "package dataset-fashion-mnist."
    )


def _images(folder: Path, part: str) -> Path:
    return folder / f"{part}-images-idx3-ubyte.gz"


def _labels(folder: Path, part: str) -> Path:
    return folder / f"{part}-labels-idx1-ubyte.gz"


def _read_part(folder: Path, part: str, size: int) -> tuple[Tensor, Tensor]:
    images = read_idx(_images(folder, part), dimensions=3).unsqueeze(1)
    path = _labels(folder, part)
    targets = read_idx(path, dimensions=1).to(torch.int64)
    if len(targets) != len(images):
        raise InputError(
            f"{path} holds {len(targets)} labels for {len(images)} images: fetch both again."
        )
    if len(targets) and int(targets.max()) >= _CLASSES:
        raise InputError(
            f"{path} holds label {int(targets.max())}, accepted are 0 to {_CLASSES - 1}: "
            "fetch it again."
        )
    return pad_to_size(images, size, "fashion-mnist"), targets
