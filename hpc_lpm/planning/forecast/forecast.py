"""What one way to train is predicted to do: the time of a step, what it is worth, its memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Self

from hpc_lpm.planning.worth.expected import ExpectedSteps, StepWorth
from hpc_lpm.planning.worth.lag import Lag

if TYPE_CHECKING:
    from hpc_lpm.planning.forecast.case import Case

NO_LAG = Lag(mean=Fraction(0), largest=0, first_stage=Fraction(0))
SYNCHRONOUS = ExpectedSteps(
    Fraction(1), StepWorth(value=1.0, low=1.0, high=1.0, reason="no weights lag")
)


class Certainty(IntEnum):
    """How much a prediction tells of the time to a target; what tells more comes first."""

    EXPECTED = 0
    """The time of a step is predicted, and what it is worth is known."""
    WORTH_UNKNOWN = 1
    """What a step is worth was never measured at its lag."""
    AT_BEST = 2
    """A step takes no less than predicted, and nothing tells how much more."""
    NEVER = 3
    """It did not reach the target where its lag was measured."""


@dataclass(frozen=True)
class Forecast:
    """One way to train, and what it is predicted to do.

    Attributes:
        way: what tells it from other ways apart from its numbers: the schedule, or a phrase.
        stages: K, 1 where the model is not cut.
        replicas: R, the copies of every stage or of the whole model.
        micro_batches: of a step as `--micro-batches` counts them.
        micro_batch: samples of one.
        step_seconds: of an optimizer step in steady state.
        bound: what they are bounded by, in a phrase.
        memory_bytes: of the fullest device.
        sent_bytes: of a step over all links.
        samples: of a step.
        lag: by how many updates weights lag.
        expected: how many steps are needed, as a multiple of the synchronous ones.
        options: those of `hpc-lpm train` for strategies that have them: lead, weights, recipe.
        cuts: K + 1 positions, empty where the model is not cut.
        at_best: whether `step_seconds` is only known not to be less.
        step_on: returns the seconds of a step of the same way in a case with other links; None
            where links change nothing.
    """

    way: str
    stages: int
    replicas: int
    micro_batches: int
    micro_batch: int
    step_seconds: Fraction
    bound: str
    memory_bytes: int
    sent_bytes: int
    samples: int
    lag: Lag = NO_LAG
    expected: ExpectedSteps = SYNCHRONOUS
    options: Mapping[str, object] = field(default_factory=dict)
    cuts: tuple[int, ...] = ()
    at_best: bool = False
    step_on: Callable[["Case"], Fraction] | None = field(default=None, compare=False)

    def on(self, case: "Case") -> Self:
        """Return what this way is predicted to do in a case that differs in its links."""
        return self if self.step_on is None else replace(self, step_seconds=self.step_on(case))

    @property
    def devices(self) -> int:
        """The ranks that train."""
        return self.stages * self.replicas

    @property
    def certainty(self) -> Certainty:
        """How much is known of the time to a target."""
        if self.at_best:
            return Certainty.AT_BEST
        if self.expected.worth.value is None:
            return Certainty.WORTH_UNKNOWN
        return Certainty.NEVER if self.expected.ratio is None else Certainty.EXPECTED

    @property
    def target_seconds(self) -> Fraction | None:
        """The seconds in which it comes as far as one synchronous step; None if that is unknown."""
        ratio = self.expected.ratio
        return None if ratio is None or self.at_best else self.step_seconds * ratio

    @property
    def merit(self) -> tuple[int, Fraction, int, int]:
        """The key that forecasts are sorted by, best first."""
        seconds = self.target_seconds
        known = self.step_seconds if seconds is None else seconds
        return (self.certainty, known, self.stages, self.micro_batches)

    @property
    def samples_per_second(self) -> float:
        """The rate of all devices; 0 if no layer of the profile takes any time."""
        return float(self.samples / self.step_seconds) if self.step_seconds else 0.0

    @property
    def effective_rate(self) -> float | None:
        """Samples per second that synchronous training would need to come as far, if known."""
        worth = self.expected.worth.value
        return None if worth is None or self.at_best else self.samples_per_second * worth
