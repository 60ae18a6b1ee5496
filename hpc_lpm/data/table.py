"""Tables in CSV or Parquet files: some columns are the targets, the others the inputs."""

import bz2
import gzip
import lzma
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hpc_lpm.data.dataset import Dataset, DataShape
from hpc_lpm.data.held_out import split_share, test_part
from hpc_lpm.data.locations import require_file, unreadable
from hpc_lpm.data.samples import Split
from hpc_lpm.data.table_columns import (
    Missing,
    encode_columns,
    fit_columns,
    holds_decimals,
    holds_texts,
    refuse_missing,
)
from hpc_lpm.data.targets import EncodedTargets, Task, Values, encode_targets
from hpc_lpm.errors import InputError, closest

if TYPE_CHECKING:
    import pandas as pd

Separator = Literal["comma", "semicolon", "tab", "space", "pipe"]
"""What is between the values of a line."""

_SEPARATORS: dict[str, str] = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "space": r"\s+",
    "pipe": "|",
}
_GUESSED = ("\t", ";", "|", ",")
_PARQUET = {".parquet", ".pq"}
_COMPRESSED: dict[str, Callable[..., IO[str]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_SHOWN_COLUMNS = 12
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,15}\s*")


def table_files(path: Path, *, test: str | None = None, **_options: object) -> Iterable[Path]:
    """Return the file, and that of the test part if it has one of its own."""
    held_out = test_part(f"table:{path}", test, path.parent)
    other = [held_out] if isinstance(held_out, Path) else []
    return [require_file(file, "table") for file in (path, *other)]


def load_table(
    path: Path,
    *,
    target: str,
    drop: str | None = None,
    missing: Missing = "refuse",
    task: Task | None = None,
    test: str | None = None,
    separator: Separator | None = None,
    decimal: Literal["point", "comma"] = "point",
    header: bool = True,
) -> Dataset:
    """Load a table, a row a sample.

    Args:
        path: a Parquet file (.parquet, .pq) or text with values between separators, which may be
            compressed (.gz, .bz2, .xz).
        target: the column of the targets, or several as a+b.
        drop: columns to leave out, as a+b.
        missing: "refuse" missing values, replace numbers by the training part's "mean", or "drop"
            the rows that lack any.
        task: what is to be learnt; see `encode_targets`. A single column of whole numbers, texts or
            truth values holds classes, one of numbers with a point is regressed; several columns of
            0 and 1 are labels, other columns of numbers are regressed.
        test: a share of the rows, or another file with the same columns; by default a fifth.
        separator: what is between the values; by default a comma, semicolon, tab or bar, whichever
            the first line has most of.
        decimal: the sign before the decimals of a number.
        header: whether the first line names the columns; otherwise they are called 0, 1, 2, ...

    Raises:
        InputError: if a file or column is missing or cannot be read, values are missing, or a
            column holds something that cannot be a feature or target.
    """
    owner = f"table:{path}"

    def read(file: Path, texts: Collection[str] = ()) -> "pd.DataFrame":
        return _read(require_file(file, "table"), separator, decimal, texts, header=header)

    table = read(path)
    targets = _chosen(target, table, "target", owner)
    dropped = _chosen(drop, table, "drop", owner) if drop else []
    features = [name for name in table.columns if name not in {*targets, *dropped}]
    if not features:
        raise InputError(f"{owner} has no columns but the targets: add inputs or drop fewer.")
    held_out = test_part(owner, test, path.parent)
    frames = [table]
    if isinstance(held_out, Path):
        other = read(held_out, [name for name in table.columns if holds_texts(table[name])])
        _chosen(target, other, "target", f"table:{held_out}")
        frames.append(other)
    frames = [_without_gaps(frame, features, targets, missing, owner) for frame in frames]
    if missing == "drop":
        files = [path, held_out] if isinstance(held_out, Path) else [path]
        frames = [
            _whole_again(frame, targets, partial(read, file, targets))
            for frame, file in zip(frames, files, strict=True)
        ]
    values = [_target_values(frame[targets]) for frame in frames]
    encoded = encode_targets(values, owner, task or _task_of_several(values))
    labels = list(encoded.parts)
    if not isinstance(held_out, Path):
        by_class = labels[0] if encoded.task == "classes" and labels[0].dim() == 1 else None
        train, tested = split_share(len(frames[0]), held_out, owner, by_class)
        frames = [frames[0].iloc[train.numpy()], frames[0].iloc[tested.numpy()]]
        labels = [labels[0][train], labels[0][tested]]
    columns = fit_columns(frames[0][features], owner)
    inputs = [
        torch.from_numpy(encode_columns(frame, columns, owner).astype(np.float32))
        for frame in frames
    ]
    width = sum(column.width for column in columns)
    return _dataset(owner, width, inputs, labels, encoded)


def _dataset(
    owner: str,
    width: int,
    inputs: list[torch.Tensor],
    labels: list[torch.Tensor],
    targets: EncodedTargets,
) -> Dataset:
    if not width:
        raise InputError(f"{owner} has no values in its columns of inputs: fill them in.")
    train, test = (Split(*pair) for pair in zip(inputs, labels, strict=True))
    shape = DataShape("image", (width,), targets.classes, targets.task)
    return Dataset(owner, shape, train, test, class_names=targets.names)


def _read(
    path: Path,
    separator: Separator | None,
    decimal: str,
    texts: Collection[str],
    *,
    header: bool,
) -> "pd.DataFrame":
    """Read a table; in a file of text the columns `texts` are taken as they are written."""
    import pandas as pd

    names: list[Any]
    try:
        if path.suffix.lower() in _PARQUET:
            table = pd.read_parquet(path)
            names = list(table.columns)
        else:
            between = _SEPARATORS[separator] if separator else _likely_separator(path)
            names = _first_values(path, between)
            if not header:
                names = list(range(len(names)))
            table = pd.read_csv(
                path,
                sep=between,
                decimal="," if decimal == "comma" else ".",
                header=0 if header else None,
                skipinitialspace=True,
                low_memory=False,
                dtype={name: str for name in names if str(name).strip() in texts} or None,
            )
    except UnicodeDecodeError:
        raise InputError(
            f"table {path} is not text in UTF-8: convert it, or name a compressed file .gz and a "
            "Parquet file .parquet."
        ) from None
    except OSError as error:
        raise unreadable(path, "table", error) from None
    except Exception as error:  # the readers' own errors are of many types
        reason = " ".join(str(error).split()).rstrip(".")
        also = "" if path.suffix.lower() in _PARQUET else ", or name another ,separator="
        raise InputError(f"table {path} cannot be read ({reason}): correct it{also}.") from None
    table.columns = [str(name).strip() for name in table.columns]
    if not len(table):
        raise InputError(f"table {path} has no rows: name a file that has some.")
    # As they are written: pandas would call the second of two columns a by the name a.1.
    counts = Counter(str(name).strip() for name in names)
    twice = [name for name, count in counts.items() if name and count > 1]
    if twice:
        raise InputError(f"table {path} has the column {twice[0]!r} twice: rename one.")
    return table


def _first_values(path: Path, separator: str) -> list[Any]:
    """Return the values of the first line of a file of text as they are written."""
    import pandas as pd

    first = pd.read_csv(
        path,
        sep=separator,
        header=None,
        nrows=1,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
    )
    values: list[Any] = first.iloc[0].tolist() if len(first) else []
    return values


def _likely_separator(path: Path) -> str:
    opener = _COMPRESSED.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
        first = stream.readline()
    return max(_GUESSED, key=first.count) if any(map(first.count, _GUESSED)) else ","


def _chosen(text: str, table: "pd.DataFrame", option: str, owner: str) -> list[str]:
    """Return the columns that an option names as a+b, or as one name that has a plus in it."""
    known = list(table.columns)
    names = [text] if text in known else text.split("+")
    for name in names:
        if name not in known:
            shown = ", ".join(known[:_SHOWN_COLUMNS]) + (", ..." if known[_SHOWN_COLUMNS:] else "")
            raise InputError(
                f"option {option!r} of {owner} names the column {name!r}, which is not there"
                f"{closest(name, known)}: the columns are {shown}; write header=false if these are "
                "values."
            )
    return names


def _without_gaps(
    table: "pd.DataFrame", features: list[str], targets: list[str], missing: Missing, owner: str
) -> "pd.DataFrame":
    """Return the columns that are used, in rows whose missing values are permitted."""
    present = [name for name in features if name in table.columns]
    used = table[[*targets, *present]]
    if missing == "drop":
        used = used.dropna()
        if not len(used):
            raise InputError(f"{owner} lacks a value in every row: fill some in or drop columns.")
        return used
    refuse_missing(used[targets] if missing == "mean" else used, owner)
    return used


def _whole_again(
    table: "pd.DataFrame", targets: list[str], read_texts: "Callable[[], pd.DataFrame]"
) -> "pd.DataFrame":
    """Return the table with targets as whole numbers that are written so.

    pandas reads a column of whole numbers that has gaps as one of numbers with a point, which would
    be regressed.
    """
    from pandas.api import types

    real = [
        name
        for name in targets
        if types.is_float_dtype(table[name].dtype) and (table[name] % 1 == 0).all()
    ]
    if not real:
        return table
    written = read_texts()
    whole = [
        name for name in real if all(_WHOLE.fullmatch(str(text)) for text in written[name].dropna())
    ]
    return table.astype(dict.fromkeys(whole, "int64"))


def _target_values(columns: "pd.DataFrame") -> Values:
    """Return targets [rows] of one column or [rows, columns] of several."""
    arrays = [_values(columns[name]) for name in columns.columns]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)


def _task_of_several(parts: Sequence[Values]) -> Task | None:
    """Return that several columns of numbers other than flags are regressed, None of all others.

    In a single column whole numbers are classes.
    """
    numbers = all(part.ndim == 2 and part.dtype.kind in "iuf" for part in parts)
    if not numbers or all(((part == 0) | (part == 1)).all() for part in parts):
        return None
    return "regression"


def _values(column: "pd.Series[Any]") -> Values:
    from pandas.api import types

    kinds = {np.bool_: types.is_bool_dtype, np.int64: types.is_integer_dtype}
    for kind, fits in kinds.items():
        if fits(column.dtype):
            return column.to_numpy(dtype=kind)
    if types.is_float_dtype(column.dtype) or holds_decimals(column):
        return column.to_numpy(dtype=np.float64)
    return np.array([str(value) for value in column])
