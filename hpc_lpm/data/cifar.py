"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their published python and binary formats."""

import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.array_pickle import read_array_pickle
from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.images import image_dataset, pad_to_size
from hpc_lpm.data.locations import reading
from hpc_lpm.errors import InputError

Labels = Literal["fine", "coarse"]
"""CIFAR-100's 100 classes, or the 20 groups of them."""

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_MOST_BYTES, _MOST_ARCHIVE_BYTES = 2**28, 2**30
"""The largest published file has 154 MB, and the largest archive 170 MB."""


@dataclass(frozen=True)
class _Published:
    """One published form: the names of its folder, its archive and the files in both."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    class_names: str
    binary: bool

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR10 = (
    _Published(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        _BATCHES,
        "test_batch",
        "batches.meta",
        binary=False,
    ),
    _Published(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        tuple(f"{batch}.bin" for batch in _BATCHES),
        "test_batch.bin",
        "batches.meta.txt",
        binary=True,
    ),
)


def _cifar100(labels: Labels) -> tuple[_Published, ...]:
    return (
        _Published(
            "cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "meta", binary=False
        ),
        _Published(
            "cifar-100-binary",
            "cifar-100-binary.tar.gz",
            ("train.bin",),
            "test.bin",
            f"{labels}_label_names.txt",
            binary=True,
        ),
    )


def cifar10_shape(_: Path | None, *, size: int = _SIDE) -> DataShape:
    """Return the shape without loading."""
    return DataShape("image", (3, size, size), 10)


def cifar10_files(data_dir: Path | None, **_options: object) -> Iterable[Path]:
    """Return the files of CIFAR-10, or its archive.

    Raises:
        InputError: if `data_dir` does not have them.
    """
    return _Copy.find("cifar10", _CIFAR10, data_dir).paths()


def load_cifar10(data_dir: Path | None, *, size: int = _SIDE) -> Dataset:
    """Load the published split, padded with zeros to `size` pixels a side.

    The files are looked for in `data_dir` and in its folders and archives of the published names.

    Raises:
        InputError: if they are not there, incomplete or broken, or `size` is below 32.
    """
    copy = _Copy.find("cifar10", _CIFAR10, data_dir)
    return _load(copy, size, classes=10, label=0, labels=("labels",), names="label_names")


def cifar100_shape(_: Path | None, *, size: int = _SIDE, labels: Labels = "fine") -> DataShape:
    """Return the shape without loading."""
    return DataShape("image", (3, size, size), 100 if labels == "fine" else 20)


def cifar100_files(
    data_dir: Path | None, *, size: int = _SIDE, labels: Labels = "fine"
) -> Iterable[Path]:
    """Return the files of CIFAR-100, or its archive.

    Raises:
        InputError: if `data_dir` does not have them.
    """
    return _Copy.find("cifar100", _cifar100(labels), data_dir).paths()


def load_cifar100(data_dir: Path | None, *, size: int = _SIDE, labels: Labels = "fine") -> Dataset:
    """Load the published split with its 100 fine or its 20 coarse classes.

    Raises:
        InputError: if the files are not there, incomplete or broken, or `size` is below 32.
    """
    shape = cifar100_shape(data_dir, size=size, labels=labels)
    return _load(
        _Copy.find("cifar100", _cifar100(labels), data_dir),
        size,
        classes=shape.classes,
        label=0 if labels == "coarse" else 1,
        labels=("coarse_labels", "fine_labels"),
        names=f"{labels}_label_names",
    )


@dataclass(frozen=True)
class _Copy:
    """A copy of a data set on disk: a folder of files, or an archive of them."""

    name: str
    published: _Published
    path: Path

    @classmethod
    def find(cls, name: str, forms: Sequence[_Published], data_dir: Path | None) -> "_Copy":
        """Find a copy: files before archives, python before binary.

        Raises:
            InputError: if there is none, or files are missing in the one that is found.
        """
        wanted = " or ".join(form.folder for form in forms)
        archives = " or ".join(form.archive for form in forms)
        if data_dir is None:
            raise InputError(
                f"{name} has no folder of its files: fetch {archives}, unpack it, and name the "
                "folder that holds it with --data-dir."
            )
        for form in forms:
            for folder in (data_dir / form.folder, data_dir):
                if any((folder / file).is_file() for file in form.files):
                    return cls(name, form, folder)._complete()
        for form in forms:
            if (data_dir / form.archive).is_file():
                return cls(name, form, data_dir / form.archive)
        raise InputError(
            f"--data-dir {data_dir} holds no {name}: neither the folder {wanted} nor its files nor "
            f"{archives} are there: name the folder that holds one of them."
        )

    def _complete(self) -> "_Copy":
        missing = [file for file in self.published.files if not (self.path / file).is_file()]
        if missing:
            raise InputError(
                f"{self.name} in {self.path} lacks {', '.join(missing)}: fetch it again."
            )
        return self

    def paths(self) -> list[Path]:
        """Return the files that it consists of."""
        if self.path.name == self.published.archive:
            return [self.path]
        names = self.path / self.published.class_names
        files = [self.path / file for file in self.published.files]
        return [*files, names] if names.is_file() else files

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """The content of every file, by name.

        Raises:
            InputError: if one cannot be read.
        """
        if self.path.name == self.published.archive:
            return self._unpacked()
        with reading(self.path, self.name):
            return {path.name: path.read_bytes() for path in self.paths()}

    def _unpacked(self) -> dict[str, bytes]:
        wanted = {*self.published.files, self.published.class_names}
        contents: dict[str, bytes] = {}
        size = self.path.stat().st_size
        if size > _MOST_ARCHIVE_BYTES:
            raise InputError(
                f"archive {self.path} has {size:,} bytes, accepted are up to "
                f"{_MOST_ARCHIVE_BYTES:,}: fetch it again."
            )
        try:
            with tarfile.open(self.path) as archive:
                for member in archive:  # in one pass: a compressed archive cannot be searched
                    name = Path(member.name).name
                    if name not in wanted or not member.isreg():
                        continue
                    if member.size > _MOST_BYTES:
                        raise InputError(
                            f"archive {self.path} has {member.size:,} bytes of {name}, accepted "
                            f"are up to {_MOST_BYTES:,}: fetch it again."
                        )
                    stream = archive.extractfile(member)
                    assert stream is not None
                    contents[name] = stream.read()
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise InputError(
                f"archive {self.path} cannot be read ({error}): fetch it again."
            ) from None
        missing = [file for file in self.published.files if file not in contents]
        if missing:
            raise InputError(f"archive {self.path} lacks {', '.join(missing)}: fetch it again.")
        return contents

    def where(self, file: str) -> str:
        """Return the place of a file, for messages."""
        return f"{self.path}/{file}"


def _load(
    copy: _Copy, size: int, *, classes: int, label: int, labels: tuple[str, ...], names: str
) -> Dataset:
    """Load both parts; `label` tells which of the `labels` of an image is its target."""
    published = copy.published
    if published.binary:
        read = partial(_read_binary, labels=len(labels), label=label)
        class_names = _lines(copy.contents.get(published.class_names, b""))
    else:
        read = partial(_read_python, label=labels[label])
        class_names = _names_in_pickle(copy, names)

    def part(files: Sequence[str]) -> tuple[Tensor, Tensor]:
        pieces = [
            _checked(read(copy.contents[file], copy.where(file)), classes, copy.where(file))
            for file in files
        ]
        images = torch.cat([images for images, _ in pieces])
        return pad_to_size(images, size, copy.name), torch.cat([targets for _, targets in pieces])

    made = image_dataset(copy.name, part(published.train), part((published.test,)), classes)
    return replace(made, class_names=class_names if len(class_names) == classes else ())


def _read_binary(content: bytes, where: str, *, labels: int, label: int) -> tuple[Tensor, Tensor]:
    """Read records of so many bytes of labels and 3072 of an image: red, green, blue by rows."""
    record = labels + _PIXELS
    if not content or len(content) % record:
        raise InputError(
            f"{where} holds {len(content)} bytes, accepted are whole records of {record} bytes: "
            "fetch it again."
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, record)
    return records[:, labels:].reshape(-1, 3, _SIDE, _SIDE), records[:, label].long()


def _read_python(content: bytes, where: str, *, label: str) -> tuple[Tensor, Tensor]:
    batch = read_array_pickle(content, where)
    images, targets = batch.get("data"), batch.get(label)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2:
        raise InputError(f"{where} holds no images under 'data': fetch it again.")
    if images.shape[1] != _PIXELS or not len(images):
        raise InputError(
            f"{where} holds images of shape {images.shape}, accepted is (n, {_PIXELS}): fetch it "
            "again."
        )
    if not isinstance(targets, list | np.ndarray) or len(targets) != len(images):
        found = len(targets) if isinstance(targets, list | np.ndarray) else "no"
        raise InputError(f"{where} holds {found} {label} for {len(images)} images: fetch it again.")
    whole = all(isinstance(target, int | np.integer) for target in targets)
    if not whole or not all(0 <= target < 2**31 for target in targets):
        raise InputError(f"{where} holds {label} that are no numbers of classes: fetch it again.")
    pixels = torch.from_numpy(images.copy()).view(-1, 3, _SIDE, _SIDE)
    return pixels, torch.tensor([int(target) for target in targets])


def _checked(part: tuple[Tensor, Tensor], classes: int, where: str) -> tuple[Tensor, Tensor]:
    targets = part[1]
    for target in (int(targets.min()), int(targets.max())):
        if not 0 <= target < classes:
            raise InputError(
                f"{where} holds label {target}, accepted are 0 to {classes - 1}: fetch it again."
            )
    return part


def _names_in_pickle(copy: _Copy, key: str) -> tuple[str, ...]:
    content = copy.contents.get(copy.published.class_names)
    if content is None:
        return ()
    where = copy.where(copy.published.class_names)
    found = read_array_pickle(content, where).get(key, [])
    if not isinstance(found, list) or not all(isinstance(name, bytes | str) for name in found):
        raise InputError(f"{where} holds {key} that are no list of texts: fetch it again.")
    return tuple(
        name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in found
    )


def _lines(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode("utf-8", "replace").split())
