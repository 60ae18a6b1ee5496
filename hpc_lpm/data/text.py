"""Text of any file or folder as bytes or as a tokenizer's tokens; the target is the next one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.held_out import test_part
from hpc_lpm.data.locations import is_folder, reading, require_file
from hpc_lpm.data.samples import Split
from hpc_lpm.data.text_selection import selected_files
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import require_at_least

DEFAULT_SEQUENCE = 128
"""Length of a sample in tokens unless asked otherwise."""

_TEST_SHARE = 0.1
_BYTES = 256


def text_files(
    path: Path,
    *,
    pattern: str | None = None,
    hidden: bool = False,
    tokenizer: Path | None = None,
    test: str | None = None,
    **_options: object,
) -> Iterable[Path]:
    """Return the files of the text in the order in which they are read, and the tokenizer's.

    Raises:
        InputError: if one is missing or no file matches.
    """
    held_out = test_part(f"text:{path}", test, path)
    files = selected_files(path, pattern, hidden=hidden)
    if isinstance(held_out, Path):
        files += _test_files(held_out, pattern, hidden=hidden)
    return files if tokenizer is None else [*files, _tokenizer_file(tokenizer)]


def text_shape(
    path: Path,
    *,
    sequence: int = DEFAULT_SEQUENCE,
    pattern: str | None = None,
    hidden: bool = False,
    tokenizer: Path | None = None,
    test: str | None = None,
) -> DataShape:
    """Return the shape without loading the text.

    Raises:
        InputError: if `sequence` is below 1 or the tokenizer cannot be loaded.
    """
    require_at_least("text", "sequence", sequence, 1)
    return DataShape("text", (sequence,), _vocabulary(_tokenizer(tokenizer)))


def load_text(
    path: Path,
    *,
    sequence: int = DEFAULT_SEQUENCE,
    pattern: str | None = None,
    hidden: bool = False,
    tokenizer: Path | None = None,
    test: str | None = None,
) -> Dataset:
    """Load a file, or the files of a folder in the order of their names, one after the other.

    Samples are `sequence` tokens each, side by side; tokens at the end that do not fill a sample
    are left out.

    Args:
        path: a file, or a folder whose regular files are read.
        sequence: the length of a sample.
        pattern: which files of a folder, such as `**/*.py` for those in its folders too; several
            patterns as a+b.
        hidden: whether to read hidden and backup files and what is in hidden folders too.
        tokenizer: a `tokenizer.json` of the package tokenizers, or the folder of one; by default
            each byte is a token.
        test: the share of the tokens, from the end, that are the test part, a tenth by default; or
            another file or folder.

    Raises:
        InputError: if `path` cannot be read or is too small for one sample in each part, the
            tokenizer cannot be loaded, or `sequence` is below 1.
    """
    require_at_least("text", "sequence", sequence, 1)
    loaded = _tokenizer(tokenizer)
    held_out = test_part(f"text:{path}", test, path)
    content = _tokens(selected_files(path, pattern, hidden=hidden), loaded)
    if isinstance(held_out, Path):
        parts = content, _tokens(_test_files(held_out, pattern, hidden=hidden), loaded)
    else:
        test_start = len(content) - int(len(content) * (held_out or _TEST_SHARE))
        parts = content[:test_start], content[test_start:]
    if min(map(len, parts)) < sequence + 1:
        kind = "bytes" if tokenizer is None else "tokens"
        raise InputError(
            f"text {path} holds {len(content)} {kind}, its training part {len(parts[0])} and its "
            f"test part {len(parts[1])}, accepted are at least {sequence + 1} in each: name a "
            "larger text or shorten the samples with ,sequence=."
        )
    train, test_samples = (_samples(part, sequence) for part in parts)
    shape = DataShape("text", (sequence,), _vocabulary(loaded))
    return Dataset(f"text:{path}", shape, train, test_samples)


def _test_files(path: Path, pattern: str | None, *, hidden: bool) -> list[Path]:
    """Return the files of a test part, which may be a file where the training part is a folder."""
    return selected_files(path, pattern if is_folder(path, "text") else None, hidden=hidden)


def _tokens(files: list[Path], tokenizer: Any) -> Tensor:
    contents = []
    for file in files:
        with reading(file, "text"):
            contents.append(file.read_bytes())
    if tokenizer is None:
        return torch.from_numpy(np.frombuffer(b"".join(contents), dtype=np.uint8).astype(np.int16))
    numbers = [_encoded(*pair, tokenizer) for pair in zip(files, contents, strict=True)]
    return torch.from_numpy(np.concatenate(numbers))


def _encoded(file: Path, content: bytes, tokenizer: Any) -> "np.ndarray":
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"text {file} is not UTF-8 at byte {error.start}, accepted with a tokenizer is UTF-8: "
            "convert it, or leave it out with ,pattern=."
        ) from None
    try:
        numbers = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception as error:  # the package raises nothing narrower
        raise InputError(
            f"the tokenizer cannot encode text {file} ({_reason(error)}): give another tokenizer."
        ) from None
    return np.array(numbers, dtype=np.int32)


def _tokenizer(path: Path | None) -> Any:
    """Return the tokenizer of a file, None without one."""
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            f"option 'tokenizer' is {path}, but the package tokenizers is not installed: install "
            'it with pip install "hpc-lpm[transformers]".'
        ) from None
    file = _tokenizer_file(path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises nothing narrower
        raise InputError(
            f"tokenizer {file} cannot be read ({_reason(error)}), accepted is the tokenizer.json "
            "of the package tokenizers: name such a file."
        ) from None
    # A text is encoded whole, whatever length of inputs the tokenizer was made for.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _tokenizer_file(path: Path) -> Path:
    if is_folder(path, "tokenizer"):
        return require_file(path / "tokenizer.json", "tokenizer")
    return path


def _vocabulary(tokenizer: Any) -> int:
    if tokenizer is None:
        return _BYTES
    # Numbers may have gaps.
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)


def _samples(tokens: Tensor, sequence: int) -> Split:
    count = (len(tokens) - 1) // sequence
    inputs = tokens[: count * sequence].view(count, sequence)
    targets = tokens[1 : count * sequence + 1].view(count, sequence)
    return Split(inputs, targets)
