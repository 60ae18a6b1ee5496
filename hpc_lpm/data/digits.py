"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn ships."""

from collections.abc import Iterable
from pathlib import Path

import torch

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.images import (
    DEFAULT_SIZE,
    image_dataset,
    packaged_file,
    packaged_table,
    resize,
    split_by_class,
)

TEST_SAMPLES = 360
_FILE = ("sklearn", "datasets/data/digits.csv.gz")
_LARGEST_VALUE = 16.0


def digits_shape(_: Path | None, *, size: int = DEFAULT_SIZE) -> DataShape:
    """Return the shape without loading."""
    return DataShape("image", (1, size, size), 10)


def digits_files(_: Path | None, **_options: object) -> Iterable[Path]:
    """Return the file that holds the images."""
    return [packaged_file(*_FILE)]


def load_digits(_: Path | None, *, size: int = DEFAULT_SIZE) -> Dataset:
    """Load 1,437 training and 360 test images, enlarged bilinearly to `size` pixels a side."""
    table = packaged_table(*_FILE)
    values = table[:, :-1].view(-1, 8, 8) * (255.0 / _LARGEST_VALUE)
    images = resize(values.round().to(torch.uint8).unsqueeze(1), size, "digits")
    targets = table[:, -1].to(torch.int64)
    train, test = split_by_class(targets, TEST_SAMPLES)
    return image_dataset(
        "digits", (images[train], targets[train]), (images[test], targets[test]), classes=10
    )
