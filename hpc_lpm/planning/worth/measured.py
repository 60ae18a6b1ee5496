"""The file of measured step ratios: how many more steps a lag costs, measured by training.

It is a CSV file with one row for each way to train that was measured. The toolkit's own is
`measured.csv` beside this module; users make theirs with runs of `--in-one-process`.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import inf, isclose
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text, unreadable
from hpc_lpm.options import DOUBLE_BUFFER, LAG_OF_DOUBLE_BUFFER, PlannedPolicyName
from hpc_lpm.planning.options import MOST_DEVICES, MOST_IN_A_STEP
from hpc_lpm.recipes import AUTO, NO_RECIPE, RECIPES
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, schedule_named
from hpc_lpm.typed_values import describe_validation_error

PACKAGED = Path(__file__).with_name("measured.csv")
"""The measurements that come with the toolkit."""

_ROUNDED = 0.005
"""By how much a lag in a file may differ from its schedule's, so that it may be rounded."""

UNSHRUNK = 1.0
"""The factor of gradients that a stage hands on as they are."""

Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
SMALLEST_RATIO, LARGEST_RATIO = 1e-3, 1e3
"""Beyond these no training has the steps of another one to the same target."""


def _sensible(ratio: float) -> float:
    if not (SMALLEST_RATIO <= ratio <= LARGEST_RATIO or ratio == inf):
        raise ValueError(
            f"accepted are {SMALLEST_RATIO:g} to {LARGEST_RATIO:g}, and inf where the target was "
            f"not reached, found {ratio:g}"
        )
    return ratio


Ratio = Annotated[float, AfterValidator(_sensible)]


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


Spread = Annotated[Ratio | None, BeforeValidator(_empty_is_none)]


class MeasuredSteps(BaseModel):
    """One row: the steps that a way to train needs, as a multiple of the synchronous ones.

    Attributes:
        model_family: the beginning of the names of the models that it was measured with.
        optimizer: as `--optimizer` names it.
        recipe: the bundle of corrections that was used, `none` for none.
        stages: K.
        micro_batches: M.
        lead: r.
        weights: the weight policy.
        first_stage_lag: updates by which the first stage lags on average.
        steps_ratio: steps to the target over those of synchronous training, from 0.001 to 1000;
            `inf` where the target was not reached.
        low: the lower end of the interval of `steps_ratio`; None where none is known.
        high: its upper end.
        seeds: how many seeds were measured.
        source: where the figures come from.
        gradient_shrink: the factor of the gradient that a stage hands to the stage before it; a
            file may leave the column out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_family: Name
    optimizer: Name
    recipe: Name
    stages: Annotated[Count, Field(le=MOST_DEVICES)]
    micro_batches: Annotated[Count, Field(le=MOST_IN_A_STEP)]
    lead: Annotated[Count, Field(le=MOST_IN_A_STEP)]
    weights: PlannedPolicyName
    first_stage_lag: float = Field(ge=0, allow_inf_nan=False)
    steps_ratio: Ratio
    low: Spread = None
    high: Spread = None
    seeds: Count
    source: Name
    gradient_shrink: float = Field(default=UNSHRUNK, gt=0, le=1)

    @property
    def lag(self) -> Fraction:
        """`first_stage_lag` without rounding, as the schedule and the weight policy say."""
        if self.weights == DOUBLE_BUFFER:
            return Fraction(LAG_OF_DOUBLE_BUFFER)
        schedule = schedule_named(DEFAULT_SCHEDULE)
        return schedule.mean_lag(0, self.stages, self.micro_batches, self.lead)

    @model_validator(mode="after")
    def _interval_holds_the_ratio(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high are one given and one empty, accepted is both or none")
        if self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}")
            if not self.low <= self.steps_ratio <= self.high:
                raise ValueError(
                    f"steps_ratio is {self.steps_ratio:g}, outside low to high, {self.low:g} to "
                    f"{self.high:g}"
                )
        return self

    @model_validator(mode="after")
    def _lag_is_the_schedules(self) -> Self:
        lag = float(self.lag)
        if not isclose(self.first_stage_lag, lag, rel_tol=0, abs_tol=_ROUNDED):
            raise ValueError(
                f"first_stage_lag is {self.first_stage_lag:g}, but the first of {self.stages} "
                f"stages with {self.micro_batches} micro-batches, lead {self.lead} and weights "
                f"{self.weights} lags by {lag:g}"
            )
        if not self.first_stage_lag and self.steps_ratio != 1:
            raise ValueError(
                f"steps_ratio is {self.steps_ratio:g} where nothing lags, accepted is 1 there"
            )
        return self


COLUMNS = tuple(MeasuredSteps.model_fields)
OPTIONAL_COLUMNS = frozenset({"gradient_shrink"})


@dataclass(frozen=True)
class Measurements:
    """The rows of a file, the name of the file for sentences, and which rows are asked for.

    Attributes:
        rows: all of the file.
        where: names the file.
        gradient_shrink: that of the rows that count.
    """

    rows: tuple[MeasuredSteps, ...]
    where: str
    gradient_shrink: float = UNSHRUNK

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read and validate a file of measurements.

        Raises:
            InputError: if it cannot be read, or a column or a value is not as defined here; the
                sentence names the line.
        """
        where = f"efficiency file {path}"
        try:
            lines = io.StringIO(read_text(Path(path)), newline="")
            return cls(tuple(_rows(csv.reader(lines, strict=True), where)), where)
        except FileNotFoundError:
            raise InputError(
                f"{where} does not exist: name an existing file, or make one as the guide `Choose "
                "stages and replicas` shows."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(where, error, "CSV") from None
        except csv.Error as error:
            raise InputError(f"{where} cannot be read as CSV ({error}): correct it.") from None


def measurements(path: Path | str | None) -> Measurements:
    """Return the measurements in a file, or without one those that come with the toolkit.

    Raises:
        InputError: as `Measurements.read`.
    """
    return packaged_measurements() if path is None else Measurements.read(path)


def check_recipe(recipe: str, measured: Measurements) -> None:
    """Refuse a recipe that training does not know and that nothing is measured for.

    Raises:
        InputError: naming those that there are.
    """
    known = dict.fromkeys((NO_RECIPE, AUTO, *RECIPES, *(row.recipe for row in measured.rows)))
    if recipe not in known:
        raise InputError(
            f"--recipe is {recipe!r}, accepted are {', '.join(known)}: give one of these."
        )


@cache
def packaged_measurements() -> Measurements:
    """Return the measurements that come with the toolkit."""
    return Measurements(Measurements.read(PACKAGED).rows, "the toolkit's measurements")


def _rows(lines: Iterator[list[str]], where: str) -> list[MeasuredSteps]:
    header: list[str] = next(lines, [])
    left_out = OPTIONAL_COLUMNS.difference(header)
    if sorted([*header, *left_out]) != sorted(COLUMNS):
        named = ", ".join(header) or "nothing"
        raise InputError(
            f"{where} has the columns {named}, accepted are {', '.join(COLUMNS)}: name each of "
            f"them once in its first line; {', '.join(OPTIONAL_COLUMNS)} may be left out."
        )
    found: list[MeasuredSteps] = []
    for number, values in enumerate(lines, start=2):
        if not values:
            continue
        if len(values) != len(header):
            raise InputError(
                f"{where} has {len(values)} values in line {number}, accepted are {len(header)}, "
                "one for each column: correct the line."
            )
        try:
            found.append(MeasuredSteps.model_validate(dict(zip(header, values, strict=True))))
        except ValidationError as error:
            said = describe_validation_error(error).removeprefix("the whole file: ")
            raise InputError(
                f"{where} is wrong in line {number}, {said}: correct the line."
            ) from None
    if not found:
        raise InputError(f"{where} has no row below its columns: add what was measured.")
    return found
