"""Made-up samples of any number and size, for runs in which only time and bits matter."""

from collections.abc import Iterable
from pathlib import Path

import torch

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.images import split_by_class
from hpc_lpm.data.samples import Split
from hpc_lpm.identifiers import require_at_least

DEFAULT_SAMPLES = 1024
DEFAULT_FEATURES = 16
DEFAULT_CLASSES = 10

_TEST_SHARE = 0.1
# Moments of uniform bytes scaled to 0..1, because a set may be too small to measure them.
_MEAN, _STD = 0.5, 12**-0.5


def synthetic_shape(
    _: Path | None,
    *,
    samples: int = DEFAULT_SAMPLES,
    features: int = DEFAULT_FEATURES,
    classes: int = DEFAULT_CLASSES,
) -> DataShape:
    """Return the shape of the images, (1, 1, features), without making the samples.

    Raises:
        InputError: if there are fewer than 2 samples, 1 feature or 2 classes.
    """
    require_at_least("synthetic", "samples", samples, 2)
    require_at_least("synthetic", "features", features, 1)
    require_at_least("synthetic", "classes", classes, 2)
    return DataShape("image", (1, 1, features), classes)


def synthetic_files(_: Path | None, **_options: object) -> Iterable[Path]:
    """Return nothing: the samples are read from no file."""
    return []


def load_synthetic(
    location: Path | None,
    *,
    samples: int = DEFAULT_SAMPLES,
    features: int = DEFAULT_FEATURES,
    classes: int = DEFAULT_CLASSES,
) -> Dataset:
    """Make `samples` images of one row of `features` pixels; a tenth of them is the test part.

    Each image is the mean of noise and of the pattern of its class, so that the set can be learned.
    The samples depend on nothing but the options.

    Raises:
        InputError: if there are fewer than 2 samples, 1 feature or 2 classes.
    """
    shape = synthetic_shape(location, samples=samples, features=features, classes=classes)
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(samples) % classes
    patterns = torch.randint(256, (classes, *shape.input_shape), generator=generator)
    noise = torch.randint(256, (samples, *shape.input_shape), generator=generator)
    images = ((patterns[targets] + noise) // 2).to(torch.uint8)
    train, test = split_by_class(targets, max(1, int(samples * _TEST_SHARE)))
    return Dataset(
        "synthetic",
        shape,
        Split(images[train], targets[train], _MEAN, _STD),
        Split(images[test], targets[test], _MEAN, _STD),
    )
