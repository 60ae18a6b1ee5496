"""The bytes of any file or folder as text with 256 classes; the target is the next byte."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape, Split
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import require_at_least

DEFAULT_SEQUENCE = 128
"""Length of a sample in bytes unless asked otherwise."""

_TEST_SHARE = 0.1


def text_shape(_: Path, *, sequence: int = DEFAULT_SEQUENCE) -> DataShape:
    """Return the shape without loading.

    Raises:
        InputError: if `sequence` is below 1.
    """
    require_at_least("text", "sequence", sequence, 1)
    return DataShape("text", (sequence,), 256)


def text_files(path: Path, **_options: object) -> Iterable[Path]:
    """Return the file, or the regular files directly in the folder in the order of their names.

    Raises:
        InputError: if `path` cannot be read.
    """
    try:
        if not path.is_dir():
            path.stat()
            return [path]
        return sorted(file for file in path.iterdir() if file.is_file())
    except OSError as error:
        raise _unreadable(path, error) from None


def load_text(path: Path, *, sequence: int = DEFAULT_SEQUENCE) -> Dataset:
    """Load a file, or all regular files directly in a folder in the order of their names.

    The last tenth of the bytes is the test part. Samples are `sequence` bytes each, side by side;
    bytes at the end that do not fill a sample are left out.

    Raises:
        InputError: if `path` cannot be read or is too small for one sample in each part, or if
            `sequence` is below 1.
    """
    shape = text_shape(path, sequence=sequence)
    content = torch.from_numpy(np.frombuffer(_read(path), dtype=np.uint8).astype(np.int16))
    test_start = len(content) - int(len(content) * _TEST_SHARE)
    parts = content[:test_start], content[test_start:]
    if min(len(part) for part in parts) < sequence + 1:
        raise InputError(
            f"text {path} holds {len(content)} bytes, its training part {len(parts[0])} and its "
            f"test part {len(parts[1])}, accepted are at least {sequence + 1} in each: name a "
            "larger text or shorten the samples with ,sequence=."
        )
    train, test = (_samples(part, sequence) for part in parts)
    return Dataset(f"text:{path}", shape, train, test)


def _read(path: Path) -> bytes:
    try:
        return b"".join(file.read_bytes() for file in text_files(path))
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"text {path} cannot be read ({error.strerror}): name a readable file or folder."
    )


def _samples(tokens: Tensor, sequence: int) -> Split:
    count = (len(tokens) - 1) // sequence
    inputs = tokens[: count * sequence].view(count, sequence)
    targets = tokens[1 : count * sequence + 1].view(count, sequence)
    return Split(inputs, targets)
