"""Forward passes at a guess of the weights that the gradients of a micro-batch will update.

A micro-batch's gradients go into the update of its step g. Where its forward pass runs at the
weights after u < g updates, the lag is g - u; see `prediction_rules` for the guesses.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from hpc_lpm.engine.pipeline.extrapolation import Extrapolation
from hpc_lpm.engine.pipeline.options import LaggingOptions, PassRules
from hpc_lpm.engine.pipeline.previous_weights import PreviousWeights
from hpc_lpm.engine.pipeline.spectrain import SpecTrain
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.engine.updating import Updates
from hpc_lpm.prediction_rules import SPECTRAIN, rule_of


class Prediction(Protocol):
    """Predicts the weights of one stage; steps and updates count from the last drain.

    Attributes:
        behind: how many updates older than the current weights the given ones are; 0 of a guess.
    """

    behind: int

    def begin(self) -> None:
        """Count from here on; nothing is in flight."""

    def is_ahead(self, step: int) -> bool:
        """Tell if a forward pass of this step is to run at predicted weights."""

    def applied(self, step: int) -> AbstractContextManager[None]:
        """Surround a forward pass of this step."""

    def add_gradients(self, samples: int, step_samples: int) -> None:
        """Take note that the gradients of some of the samples of a step were accumulated."""

    def update(self, *, skipped: bool) -> AbstractContextManager[None]:
        """Surround an update of the stage's own weights, or what skips it."""

    def update_from(self, stage: int) -> AbstractContextManager[None]:
        """Surround the update of copies of weights that another stage owns."""

    def saved(self) -> Mapping[nn.Parameter, Mapping[str, Tensor]]:
        """Return what predictions are made from, beside the optimizer's state, by parameter."""

    def restore(self, saved: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Restore what `saved` returned."""


def prediction_of(
    settings: TrainSettings,
    rules: PassRules,
    module: nn.Module,
    tied: TiedParameters,
    updates: Updates,
) -> Prediction | None:
    """Return what gives the forwards of a stage other weights than the current ones, if they do.

    Args:
        settings: of the run.
        rules: what its strategy adds to its schedule.
        module: the stage.
        tied: its parameters that are tied to others.
        updates: what updates its own weights.
    """
    own = LaggingOptions.of(settings.own)
    if rules.weights == "double-buffer":
        return PreviousWeights(list(module.parameters()))
    if not own.prediction:
        return None
    # A graph that is kept for later refers to the parameters' memory, unless old weights are kept.
    in_place = rules.weights != "stash"
    rule = rule_of(own.prediction_rule, settings.optimizer)
    if rule == SPECTRAIN:
        return SpecTrain(updates, in_place=in_place, skips=settings.non_finite == "skip")
    return Extrapolation(rule, updates, list(module.parameters()), tied.copied, in_place=in_place)
