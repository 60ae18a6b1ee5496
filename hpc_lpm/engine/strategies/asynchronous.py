"""Asynchronous rivals of forward-backward parallel, as points of the same space.

Each is the order of `fbp` with a lead, a weight policy and what is done to the gradient from above,
all of which its paper fixes: they are no options here. `docs/explanation/rivals.md` has their
equations.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from hpc_lpm.engine.pipeline.options import LAG, PassRules, PipelineOptions
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.scheduled import Scheduled
from hpc_lpm.errors import InputError
from hpc_lpm.options import CommandOption
from hpc_lpm.schedules.registry import SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpc_lpm.engine.settings import TrainSettings
    from hpc_lpm.planning.forecast.case import Case
    from hpc_lpm.planning.forecast.forecast import Forecast

_NEVER_FLUSHES = "fbp"


class Asynchronous(Scheduled):
    """A published method whose stages run the order of `fbp`, by rules that it fixes.

    Attributes:
        rules: its lead, its weight policy, and its factor of the gradient from above.
    """

    rules: PassRules

    def __init__(self, name: str, description: str, rules: PassRules) -> None:
        super().__init__(SCHEDULES.named(_NEVER_FLUSHES))
        self.name, self.description, self.rules = name, description, rules
        self.options = PipelineOptions

    def pass_rules(self, settings: "TrainSettings") -> PassRules:
        """Return the rules of the method."""
        return self.rules

    def with_recipe(self, run: PlannedRun) -> tuple["TrainSettings", str | None]:
        """Return the settings as they are: a corrected method would be another one."""
        return run.settings, None

    def forecasts(self, settings: "TrainSettings", case: "Case") -> "Sequence[Forecast]":
        """Return what it is predicted to do, its steps worth what they are with its gradients."""
        shrink = self.pass_rules(settings).gradient_shrink
        measured = replace(case.measured, gradient_shrink=shrink)
        return super().forecasts(settings, replace(case, measured=measured))


class PipeDream(Asynchronous):
    """PipeDream (Narayanan et al. 2019): 1F1B without a flush, weights stashed."""

    def __init__(self) -> None:
        super().__init__(
            "pipedream",
            "PipeDream: 1F1B without a flush, a version of the weights for every update in flight",
            PassRules(lead=1, weights="stash"),
        )


class PipeDream2BW(Asynchronous):
    """PipeDream-2BW (Narayanan et al. 2021): every step under the weights of the one before."""

    def __init__(self) -> None:
        super().__init__(
            "pipedream-2bw",
            "PipeDream-2BW: 1F1B without a flush, two versions of the weights at every stage",
            PassRules(lead=1, weights="double-buffer"),
        )

    def check(self, run: PlannedRun) -> None:
        """Refuse steps shorter than the pipeline, and weights of two stages."""
        super().check(run)
        settings = run.settings
        if settings.micro_batches < run.stages:
            raise InputError(
                f"--micro-batches is {settings.micro_batches} with --strategy {self.name} on "
                f"{run.stages} stages, but two versions of the weights are enough only where a "
                f"step has as many micro-batches as there are stages: use {run.stages} or more."
            )
        if run.model and run.model.ties:
            raise InputError(
                f"--strategy {self.name} was given with model {run.model.name}, which ties weights "
                "of two layers, but stages update at different times, and a copy does not know "
                "the two versions of its owner: give each layer weights of its own or use another "
                "strategy."
            )


class DelayedGradients(Asynchronous):
    """Decoupled parallel backpropagation with delayed gradients (Huo et al. 2018)."""

    def __init__(self) -> None:
        super().__init__(
            "ddg",
            "DDG: decoupled backward passes whose gradients come an iteration late at every stage",
            PassRules(lead=1, weights="stash"),
        )


class FeaturesReplay(Asynchronous):
    """Features Replay (Huo et al. 2018): DDG under the current weights."""

    def __init__(self) -> None:
        super().__init__(
            "fr",
            "Features Replay: DDG whose stages run forward again, under the current weights",
            PassRules(lead=1, weights="replay"),
        )


class FullyDecoupledOptions(PipelineOptions):
    """How much less a late gradient counts."""

    gradient_shrink: Annotated[
        float,
        Field(gt=0, le=1, description="factor of the gradient that a stage hands to the one below"),
        CommandOption(LAG, metavar="X"),
    ] = 0.5


class FullyDecoupled(Asynchronous):
    """Fully decoupled training with delayed gradients (Zhuang et al. 2019)."""

    def __init__(self) -> None:
        super().__init__(
            "fdg",
            "FDG: activations and gradients an iteration late at every stage, gradients shrunk",
            PassRules(lead=2, weights="stash"),
        )
        self.options = FullyDecoupledOptions

    def pass_rules(self, settings: "TrainSettings") -> PassRules:
        """Return the rules of the method, with the factor that a run asks for."""
        assert isinstance(settings.own, FullyDecoupledOptions)
        rules = self.rules
        return PassRules(rules.lead, rules.weights, settings.own.gradient_shrink)
