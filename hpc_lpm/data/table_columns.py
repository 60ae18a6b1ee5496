"""Columns of a table as numbers, by what the training part holds in them.

pandas is imported where it is needed: every rank would wait for it.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Missing = Literal["refuse", "mean", "drop"]
"""What becomes of missing values."""

Floats = NDArray[Any]

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_FEW_CATEGORIES = 100
"""A column of so many different texts or fewer is never doubted."""


@dataclass(frozen=True)
class FeatureColumn:
    """A column of the table and the function that makes features [rows, width] of it."""

    name: str
    width: int
    encode: Callable[["pd.Series[Any]"], Floats]


def fit_columns(training: "pd.DataFrame", owner: str) -> list[FeatureColumn]:
    """Decide by the training part how each column becomes features.

    Numbers, dates and durations are brought to mean 0 and deviation 1, truth values are 0 and 1,
    texts and categories become a feature for each of their values in ascending order, which is 1 in
    the rows that have it. A category that the training part lacks sets none of them. A missing
    number becomes the mean, a missing text sets none.

    Raises:
        InputError: if a column holds something else, infinite numbers, or a different text in
            almost every row.
    """
    return [_fitted(training[name], owner) for name in training.columns]


def encode_columns(table: "pd.DataFrame", columns: list[FeatureColumn], owner: str) -> Floats:
    """Return the features of a table, float64 [rows, features].

    Raises:
        InputError: if a column is missing or of another type than in the training part.
    """
    lacking = [column.name for column in columns if column.name not in table.columns]
    if lacking:
        raise InputError(
            f"{owner} lacks the columns {', '.join(lacking)} in a part other than the training "
            "part: give all parts the same columns."
        )
    parts = [column.encode(table[column.name]) for column in columns]
    return np.concatenate(parts, axis=1)


def refuse_missing(table: "pd.DataFrame", owner: str) -> None:
    """Refuse a table with missing values.

    Raises:
        InputError: naming the first such column and the number of its rows that lack a value.
    """
    for name in table.columns:
        count = int(table[name].isna().sum())
        if count:
            raise InputError(
                f"{owner} lacks {count} of {len(table)} values in column {name!r}: fill them in, "
                "or write ,missing=mean or ,missing=drop, or leave the column out with ,drop=."
            )


def holds_decimals(column: "pd.Series[Any]") -> bool:
    """Tell if a column of a Parquet file holds decimal numbers of fixed precision."""
    present = [value for value in column if _is_present(value)]
    return bool(present) and all(isinstance(value, Decimal) for value in present)


def holds_texts(column: "pd.Series[Any]") -> bool:
    """Tell if a column holds texts, and no other values."""
    from pandas.api import types

    if types.is_numeric_dtype(column.dtype) or _is_time(column.dtype):
        return False
    present = [value for value in column if _is_present(value)]
    return bool(present) and all(isinstance(value, str) for value in present)


def _fitted(column: "pd.Series[Any]", owner: str) -> FeatureColumn:
    from pandas.api import types

    name = str(column.name)
    if types.is_bool_dtype(column.dtype):
        return FeatureColumn(name, 1, lambda column: _truths(column, name, owner))
    if isinstance(column.dtype, _categorical()) or not _as_numbers(column, name, owner):
        return _categories(column, name, owner)
    return _standardised(column, name, owner)


def _standardised(column: "pd.Series[Any]", name: str, owner: str) -> FeatureColumn:
    numbers = _numbers(column, name, owner)
    known = numbers[~np.isnan(numbers)]
    mean = float(known.mean()) if known.size else 0.0
    deviation = (float(known.std()) if known.size else 0.0) or 1.0
    times = _tells_times(column)

    def encode(column: "pd.Series[Any]") -> Floats:
        numbers = _numbers(column, name, owner)
        if known.size and _tells_times(column) != times and not np.isnan(numbers).all():
            found, accepted = ("numbers", "dates") if times else ("dates", "numbers")
            raise InputError(
                f"{owner} has {found} in column {name!r} where the training part has {accepted}: "
                "correct them or leave the column out with ,drop=."
            )
        return np.nan_to_num((numbers - mean) / deviation, nan=0.0)[:, None]

    return FeatureColumn(name, 1, encode)


def _categories(column: "pd.Series[Any]", name: str, owner: str) -> FeatureColumn:
    texts = _texts(column, name, owner)
    known = sorted({text for text in texts if text is not None})
    filled = sum(text is not None for text in texts)
    if len(known) > max(_FEW_CATEGORIES, filled // 2):
        raise InputError(
            f"{owner} has {len(known)} different texts in {filled} rows of column {name!r}, which "
            "hardly are categories: leave it out with ,drop=."
        )
    if known and all(map(_DECIMAL_COMMA.fullmatch, known)):
        raise InputError(
            f"{owner} has numbers such as {known[0]} in column {name!r}: write ,decimal=comma."
        )
    places = {text: place for place, text in enumerate(known)}

    def encode(column: "pd.Series[Any]") -> Floats:
        features = np.zeros((len(column), len(known)))
        for row, text in enumerate(_texts(column, name, owner)):
            place = None if text is None else places.get(text)
            if place is not None:
                features[row, place] = 1
        return features

    return FeatureColumn(name, len(known), encode)


def _truths(column: "pd.Series[Any]", name: str, owner: str) -> Floats:
    """Return truth values as 0 and 1; a missing one counts as false."""
    try:
        values: Floats = column.astype("float64").to_numpy(dtype=np.float64, na_value=0.0)
    except (TypeError, ValueError):
        values = np.full(len(column), np.nan)  # such as texts, of which none is a truth value
    if not np.isin(values, (0.0, 1.0)).all():
        raise InputError(
            f"{owner} has other values in column {name!r} where the training part has truth "
            "values, accepted are True and False: correct them or leave the column out with "
            ",drop=."
        )
    return values[:, None]


def _as_numbers(column: "pd.Series[Any]", name: str, owner: str) -> bool:
    """Tell if a column holds numbers, dates or durations; otherwise it holds texts."""
    from pandas.api import types

    dtype = column.dtype
    if types.is_complex_dtype(dtype):
        raise InputError(
            f"{owner} has complex numbers in column {name!r}: leave it out with ,drop=."
        )
    if types.is_numeric_dtype(dtype) or _is_time(dtype):
        return True
    if holds_decimals(column):
        return True
    present = [value for value in column if _is_present(value)]
    return bool(present) and all(map(_is_date, present))


def _numbers(column: "pd.Series[Any]", name: str, owner: str) -> Floats:
    """Return a column of numbers, of dates in seconds since 1970 or of durations in seconds."""
    import pandas as pd

    try:
        if _is_time(column.dtype):
            numbers = _seconds(column)
        elif _tells_times(column):
            numbers = _seconds(pd.to_datetime(column, format="ISO8601", utc=True))
        else:
            numbers = column.astype("float64").to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise InputError(
            f"{owner} has texts in column {name!r} where the training part has numbers or dates: "
            "correct them or leave the column out with ,drop=."
        ) from None
    if np.isinf(numbers).any():
        raise InputError(
            f"{owner} has {int(np.isinf(numbers).sum())} infinite numbers in column {name!r}: "
            "correct them or leave the column out with ,drop=."
        )
    return numbers


def _seconds(column: "pd.Series[Any]") -> Floats:
    import pandas as pd
    from pandas.api import types

    zero: Any = pd.Timedelta(0)
    if types.is_datetime64_any_dtype(column.dtype):
        aware = getattr(column.dtype, "tz", None) is not None
        zero = pd.Timestamp(0, tz="UTC") if aware else pd.Timestamp(0)
    seconds: Floats = ((column - zero) / pd.Timedelta(seconds=1)).to_numpy(dtype=np.float64)
    return seconds


def _tells_times(column: "pd.Series[Any]") -> bool:
    """Tell if a column that can be made numbers holds dates or durations."""
    from pandas.api import types

    if types.is_numeric_dtype(column.dtype):
        return False
    return _is_time(column.dtype) or any(isinstance(value, str | datetime.date) for value in column)


def _is_time(dtype: Any) -> bool:
    from pandas.api import types

    return types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype)


def _texts(column: "pd.Series[Any]", name: str, owner: str) -> list[str | None]:
    values = column.tolist()
    for value in values:
        if isinstance(value, list | dict | tuple | set | np.ndarray):
            raise InputError(
                f"{owner} has {type(value).__name__} values in column {name!r}, accepted are "
                "numbers, texts, dates and truth values: leave it out with ,drop=."
            )
    return [str(value) if _is_present(value) else None for value in values]


def _is_present(value: object) -> bool:
    import pandas as pd

    return isinstance(value, list | dict | tuple | set | np.ndarray) or not bool(pd.isna(value))  # type: ignore[call-overload]


def _is_date(value: object) -> bool:
    return isinstance(value, datetime.date) or (
        isinstance(value, str) and _DATE.fullmatch(value) is not None
    )


def _categorical() -> type:
    import pandas as pd

    return pd.CategoricalDtype
