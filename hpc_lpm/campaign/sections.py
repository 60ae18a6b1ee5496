"""The sections of a campaign file: how ranks start, what trials request, what results must hold."""

from typing import Literal, Self

from pydantic import Field, model_validator

from hpc_lpm.campaign.metrics import MetricName
from hpc_lpm.quantities import Mebibytes, Minutes, Seconds
from hpc_lpm.typed_values import TypedModel


class Launcher(TypedModel):
    """The program that starts the ranks; `options` replace its default options."""

    mpi: Literal["mpirun", "srun"] = "mpirun"
    options: list[str] | None = None


class Resources(TypedModel):
    """The resources that one trial requests of a cluster; without a scheduler nothing is enforced.

    `memory_megabytes` is the memory of one rank in MiB, or a size such as "4GiB"; `runtime_minutes`
    also takes a time such as "1h30m" or "1:30:00". What is not set of the two is derived from
    profile and plan. Without `nodes` the cluster places ranks wherever cores are free.
    """

    memory_megabytes: Mebibytes | None = None
    runtime_minutes: Minutes | None = None
    nodes: int | None = Field(default=None, gt=0)


class Tuning(TypedModel):
    """The search for a contestant's best settings before its trials.

    Short trainings of each contestant on each model and data set take `budget_seconds`, in seconds
    or as "1m30s"; the starts of ranks are not counted. What the campaign sets stays as it is set;
    what it leaves open of what the strategy calls tunable is tried, and the settings that are
    expected to be soonest at a target are raced.
    """

    budget_seconds: Seconds = 60.0


class Expectation(TypedModel):
    """The median of paired ratios metric(strategy) / metric(relative_to) has a bound.

    It must reach `at_least`, or not exceed `at_most`: one of the two is set. `at_most` suits
    metrics of which less is better, such as `seconds_to_target`. What can never be judged is
    refused: a strategy relative to itself, bytes that one of the two never sends, an accuracy that
    the data do not have.
    """

    metric: MetricName
    strategy: str
    relative_to: str
    at_least: float | None = Field(default=None, gt=0)
    at_most: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            found = "neither is" if self.at_least is None else "both are"
            raise ValueError(
                f"expect has {self.metric} of {self.strategy} with a bound at_least or at_most, "
                f"of which exactly one must be set, but {found}"
            )
        return self

    @property
    def bound_text(self) -> str:
        """The bound in words, such as `at least 1.5`."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}"

    def held_by(self, ratio: float) -> bool:
        """Tell if a ratio is within the bound."""
        if self.at_least is not None:
            return ratio >= self.at_least
        assert self.at_most is not None
        return ratio <= self.at_most
