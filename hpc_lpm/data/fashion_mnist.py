"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images of clothing."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.idx_folder import IdxFiles, IdxPart, find_idx_files
from hpc_lpm.data.images import DEFAULT_SIZE, image_dataset, pad_to_size
from hpc_lpm.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

_EXAMPLE = "train-images-idx3-ubyte"
_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def fashion_mnist_shape(_: Path | None, *, size: int = DEFAULT_SIZE) -> DataShape:
    """Return the shape without loading."""
    return DataShape("image", (1, size, size), len(_CLASSES))


def fashion_mnist_files(data_dir: Path | None, **_options: object) -> Iterable[Path]:
    """Return the four IDX files.

    Raises:
        InputError: if the folder does not have them.
    """
    return _find(data_dir).paths()


def load_fashion_mnist(data_dir: Path | None, *, size: int = DEFAULT_SIZE) -> Dataset:
    """Load the published split, with images padded from 28x28 to `size` x `size` pixels.

    The four IDX files are searched for in `data_dir` and in its folder FashionMNIST/raw, where
    torchvision puts them. Without `data_dir` they are taken from Debian's package.

    Raises:
        InputError: if that folder does not have the files, or one of them is broken.
    """
    files = _find(data_dir)
    assert files.test is not None
    train, test = _read(files.train, size), _read(files.test, size)
    return replace(image_dataset("fashion-mnist", train, test, len(_CLASSES)), class_names=_CLASSES)


def _find(data_dir: Path | None) -> IdxFiles:
    names = f"{_EXAMPLE} and its three companions"
    if data_dir is None:
        found = find_idx_files(DEBIAN_FOLDER)
        if found is None or found.test is None:
            raise InputError(
                f"fashion-mnist has no {names} in {DEBIAN_FOLDER}: name their folder with "
                "--data-dir, or install Debian's package dataset-fashion-mnist."
            )
        return found
    for folder in (data_dir, data_dir / "FashionMNIST"):
        found = find_idx_files(folder)
        if found is not None and found.test is not None:
            return found
    raise InputError(
        f"--data-dir {data_dir} holds no fashion-mnist, looked for are {names}, with .gz or "
        "without: name their folder, or leave --data-dir out to take those of Debian's package "
        "dataset-fashion-mnist."
    )


def _read(part: IdxPart, size: int) -> tuple[Tensor, Tensor]:
    images, targets = part.read()
    if int(targets.max()) >= len(_CLASSES):
        raise InputError(
            f"{part.labels} holds label {int(targets.max())}, accepted are 0 to "
            f"{len(_CLASSES) - 1}: fetch it again."
        )
    return pad_to_size(images, size, "fashion-mnist"), targets
