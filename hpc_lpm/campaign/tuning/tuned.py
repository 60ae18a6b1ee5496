"""`tuned/NAME.json`: what was tried of a contestant, how it went, and what was chosen."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpc_lpm.files import VersionedFile

NOT_REACHED = "not reached within the budget"
"""Why a candidate was not trained whose turn did not come."""


class TriedCandidate(BaseModel):
    """One candidate of a tuning.

    Attributes:
        options: the settings in which it differs from the contestant, by name.
        style: how its ranks were started, None for the usual way.
        rounds: the rounds of trainings that it came through.
        steps: how many of its optimizer steps were measured.
        step_seconds: the median of them, None if there are none.
        steps_ratio: the steps to a target over those of synchronous training, None if unknown.
        failure: why it was not trained to the end, None if it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    options: dict[str, Any]
    style: str | None
    rounds: int
    steps: int
    step_seconds: float | None
    steps_ratio: float | None
    failure: str | None

    @property
    def reached(self) -> bool:
        """Whether its turn came within the budget."""
        return self.failure != NOT_REACHED

    def described(self) -> str:
        """Say in what it differs from the contestant, such as `lead 2, weights live`."""
        options = [f"{name} {value}" for name, value in self.options.items()]
        started = [f"ranks {self.style}"] if self.style else []
        return ", ".join([*options, *started]) or "as it is"


class Tuned(VersionedFile):
    """The whole document: of one contestant on one model and data set, under one planner.

    Attributes:
        budget_seconds: the seconds of trainings that the contestant was given.
        trained_seconds: those that it has taken.
        seconds: all of it, the starts of ranks and the making of plans included.
        candidates: all that could be tried, the contestant as it is first.
        chosen: the number of the best candidate, counted from 0.
    """

    kind: ClassVar[str] = "record of a tuning"

    contestant: str
    model: str
    dataset: str
    planner: str | None
    budget_seconds: float
    trained_seconds: float
    seconds: float
    candidates: tuple[TriedCandidate, ...] = Field(min_length=1)
    chosen: int = Field(ge=0)

    @model_validator(mode="after")
    def _one_is_chosen(self) -> Self:
        if self.chosen >= len(self.candidates):
            raise ValueError(f"chosen is {self.chosen} of {len(self.candidates)} candidates")
        return self

    @property
    def choice(self) -> TriedCandidate:
        """The candidate that the contestant is raced with."""
        return self.candidates[self.chosen]
