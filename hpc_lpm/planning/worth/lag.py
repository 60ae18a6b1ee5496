"""By how many updates the weights of a plan lag, as its schedule says."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from hpc_lpm.options import DOUBLE_BUFFER, LAG_OF_DOUBLE_BUFFER
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.prediction_rules import PredictionRule
from hpc_lpm.recipes import rule_of_recipe
from hpc_lpm.schedules.base import Schedule


@dataclass(frozen=True)
class Lag:
    """Updates between the two passes of a micro-batch, in steady state.

    Attributes:
        mean: the mean over all micro-batches and all stages, each stage counting the same.
        largest: that of the micro-batch and the stage that lag most.
        first_stage: the mean over the micro-batches of the first stage, which lags most.
    """

    mean: Fraction
    largest: int
    first_stage: Fraction

    @classmethod
    def of(cls, schedule: Schedule, stages: int, options: PlanOptions) -> Self:
        """Return the lags of a plan of `stages` stages, as `schedule` and its weight policy say."""
        if options.weights == DOUBLE_BUFFER and not schedule.flushes:
            lag = Fraction(LAG_OF_DOUBLE_BUFFER)
            return cls(mean=lag, largest=LAG_OF_DOUBLE_BUFFER, first_stage=lag)
        rest = (stages, options.micro_batches, options.lead)
        means = [
            schedule.mean_lag(stage, *rest, replicas=options.replicas) for stage in range(stages)
        ]
        return cls(
            mean=sum(means, Fraction(0)) / stages,
            largest=max(
                schedule.older_versions(stage, *rest, replicas=options.replicas)
                for stage in range(stages)
            ),
            first_stage=means[0],
        )

    def rule_of_recipe(self, options: PlanOptions) -> PredictionRule | None:
        """Return the rule by which the recipe of `options` predicts weights at this lag."""
        return rule_of_recipe(
            options.recipe, options.optimizer, self.largest, replicas=options.replicas
        )
