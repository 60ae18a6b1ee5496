"""Turns the recipe of a run into options, once the stages and with them the lag are known."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hpc_lpm.engine.pipeline.options import LaggingOptions, ScheduledOptions
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError
from hpc_lpm.recipes import AUTO, NO_RECIPE, RECIPES, Recipe, recipe_for
from hpc_lpm.schedules.base import Schedule

if TYPE_CHECKING:
    from hpc_lpm.engine.settings import TrainSettings
    from hpc_lpm.options import StrategyOptions


def with_recipe(
    run: PlannedRun, schedule: Schedule, check: Callable[[PlannedRun], None]
) -> tuple["TrainSettings", str | None]:
    """Return a run's settings with the options of its recipe, and what was chosen and why.

    All own options are given in these settings, so that they repeat the run wherever it is started.
    An option that the user has given stays as it is; a recipe that does not go with it, or that
    `auto` has chosen and the run cannot take, sets nothing.

    Args:
        run: a run whose stages and micro-batches are known.
        schedule: the schedule of its strategy.
        check: refuses settings that the strategy cannot train.
    """
    own = run.settings.own
    assert isinstance(own, ScheduledOptions)
    if own.recipe == NO_RECIPE:
        return run.settings, None
    recipe, reason = _recipe(run, schedule)
    # A rule that was given counts with the prediction that a recipe may set, and else for nothing.
    idle = {"prediction_rule": None} if "prediction_rule" in type(own).model_fields else {}
    settings = _all_given(run.settings, {} if LaggingOptions.of(own).prediction else idle)
    if recipe is not None:
        left = own.left_to_the_run
        changed = {name: value for name, value in recipe.options.items() if name in left}
        try:
            tried = _all_given(run.settings, changed)
            if own.recipe == AUTO:
                check(replace(run, settings=tried))
            settings = tried
        except ValidationError:
            given = ", ".join(
                f"{name} {getattr(own, name)}" for name in recipe.options if name not in left
            )
            reason = f"{given} was given, with which {recipe.name} does not go"
            recipe = None
        except InputError as error:
            recipe, reason = None, str(error).rstrip(".")
    return settings, _choice(own.recipe, recipe, settings.own, reason)


def largest_lag(run: PlannedRun, schedule: Schedule) -> int:
    """Return the most updates that the first stage makes between the passes of a micro-batch."""
    own, micro_batches = LaggingOptions.of(run.settings.own), run.settings.micro_batches
    delay = schedule.version_delay(0, run.stages, micro_batches, own.lead, replicas=run.replicas)
    return -(-delay // micro_batches)


def _recipe(run: PlannedRun, schedule: Schedule) -> tuple[Recipe | None, str]:
    """Return the recipe that a run asks for, and why it is this one, or none."""
    own = run.settings.own
    assert isinstance(own, ScheduledOptions)
    if schedule.flushes:
        return None, f"strategy {schedule.name} flushes at every step, so that nothing lags"
    if own.recipe != AUTO:
        return RECIPES[own.recipe], ""
    lag, optimizer = largest_lag(run, schedule), run.settings.optimizer.name
    reason = f"{optimizer} lags by up to {lag} update{'' if lag == 1 else 's'} here"
    recipe = recipe_for(optimizer, lag)
    if recipe is None and lag:
        reason += ", for which no correction is known to help"
    return recipe, reason


def _all_given(settings: "TrainSettings", changed: Mapping[str, Any]) -> "TrainSettings":
    own = {name: getattr(settings.own, name) for name in type(settings.own).model_fields}
    made = type(settings.own).model_validate({**own, **changed})
    return settings.model_copy(update={"own": made})


def _choice(asked: str, recipe: Recipe | None, own: "StrategyOptions", reason: str) -> str:
    if recipe is None:
        return f"recipe {asked} chooses nothing, since {reason}"
    said = f"recipe {recipe.name} {recipe.description}"
    if asked == AUTO:
        said = f"recipe {AUTO} chooses {recipe.name}, which {recipe.description}, since {reason}"
    if kept := [name for name, value in recipe.options.items() if getattr(own, name) != value]:
        given = ", ".join(f"{name} {getattr(own, name)}" for name in kept)
        return f"{said}; what was given stays: {given}"
    return said
