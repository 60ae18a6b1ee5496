"""Parts of a training's length as people type them: `200steps`, `10%` or `2epochs`.

A bare number counts epochs. A settings file holds whole epochs as a number and all else as text, in
the one form that `written` returns.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from hpc_lpm.typed_values import QUANTITY

Unit = Literal["epochs", "steps", "%"]

_FORM = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,6}))?\s*(%|[a-z]*)")
_UNITS: dict[str, Unit] = {
    "": "epochs",
    "epoch": "epochs",
    "epochs": "epochs",
    "step": "steps",
    "steps": "steps",
    "%": "%",
}
_ACCEPTED = 'accepted is "200steps", "10%" of the run, "2epochs", or a number of epochs'


@dataclass(frozen=True)
class Duration:
    """A part of a training's length: a number of epochs, of optimizer steps, or of hundredths."""

    number: Fraction
    unit: Unit

    @classmethod
    def parse(cls, value: int | str) -> "Duration":
        """Read a duration.

        Raises:
            ValueError: saying what is accepted, if it is none.
        """
        found = _FORM.fullmatch(str(value).strip()) if type(value) in (int, str) else None
        if found is None or found[3] not in _UNITS:
            raise ValueError(f"{value!r} is no part of a run, {_ACCEPTED}")
        unit = _UNITS[found[3]]
        number = Fraction(f"{found[1]}.{found[2] or 0}")
        if unit != "%" and number.denominator != 1:
            raise ValueError(f"{value!r} is no whole number of {unit}, {_ACCEPTED}")
        if unit == "%" and number > 100:
            raise ValueError(f"{value!r} is longer than a run, accepted is at most 100%")
        return cls(number, unit)

    @property
    def written(self) -> int | str:
        """The duration as settings files hold it."""
        if self.unit == "epochs" or self.number == 0:
            return int(self.number)
        return f"{float(self.number):.12g}{self.unit}"

    def first_steps(self, steps: int, steps_an_epoch: int) -> int:
        """Return how many optimizer steps the first part of a run of this duration has."""
        if self.unit == "epochs":
            return int(self.number) * steps_an_epoch
        return int(self.number) if self.unit == "steps" else ceil(steps * self.number / 100)

    def last_steps(self, steps: int, steps_an_epoch: int) -> int:
        """Return how many optimizer steps the last part of a run of this duration has.

        The last epoch counts as one where the run ends inside it.
        """
        if self.unit == "epochs" and self.number:
            epochs = ceil(Fraction(steps, steps_an_epoch))
            return steps - (epochs - int(self.number)) * steps_an_epoch
        return self.first_steps(steps, steps_an_epoch)


def _written(value: Any) -> int | str:
    try:
        return Duration.parse(value).written
    except ValueError as error:
        raise PydanticCustomError(QUANTITY, "{why}", {"why": str(error)}) from None


PartOfRun = Annotated[int | str, BeforeValidator(_written, json_schema_input_type=int | str)]
"""A settings field that takes a duration, and holds it as `Duration.written` returns it."""
