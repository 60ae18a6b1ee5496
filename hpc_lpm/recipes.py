"""Recipes: named bundles of the options that make up for lagging weights, and which to use when.

A recipe sets options that the user has not given, and nothing else. This table has what the study
of delay has found best; a run under `--recipe auto` takes its recipe from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpc_lpm.prediction_rules import SPECTRAIN, PredictionRule

AUTO, NO_RECIPE = "auto", "none"
"""The values of `--recipe` that are no names of recipes."""

_WITH_MOMENTUM, _OF_ADAM = "momentum", ("adam", "adamw")
"""Optimizers, besides Muon, for which corrections were measured; one of the user's is none."""

_BALANCED_UP_TO = 2
"""The largest lag at which Muon learnt more with `balanced` than with `second-order`."""


@dataclass(frozen=True)
class Recipe:
    """A bundle of corrections: its name, what it does, and the options that it sets."""

    name: str
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                "last-update",
                "predicts weights by the last update, once for every update of the lag",
                {"prediction": True, "prediction_rule": "last-update"},
            ),
            Recipe(
                "second-order",
                "predicts weights by the last update and its change",
                {"prediction": True, "prediction_rule": "second-order"},
            ),
            Recipe(
                "spectrain",
                "predicts weights by the next step of SGD with momentum",
                {"prediction": True, "prediction_rule": SPECTRAIN},
            ),
            Recipe(
                "balanced",
                "predicts weights by the last update and its change, less far than they went",
                {"prediction": True, "prediction_rule": "balanced"},
            ),
        )
    }
)


def recipe_for(optimizer: str, lag: int) -> Recipe | None:
    """Return the recipe that `auto` stands for, None where no correction is known to help.

    Args:
        optimizer: the name of the optimizer, as the user gives it.
        lag: the largest lag of a micro-batch in updates.
    """
    name = optimizer.lower()
    if lag == 0:
        return None
    if name == "muon" and lag <= _BALANCED_UP_TO:
        return RECIPES["balanced"]
    if name == "muon":
        return RECIPES["second-order"]
    if name == _WITH_MOMENTUM:
        return RECIPES["spectrain"]
    return RECIPES["second-order"] if name in _OF_ADAM else None


def rule_of_recipe(
    recipe: str, optimizer: str, lag: int, *, replicas: int = 1
) -> PredictionRule | None:
    """Return the rule by which a recipe predicts weights that lag, None if it predicts none.

    Args:
        recipe: its name, `auto` or `none`; a name that is in no table predicts nothing.
        optimizer: the name of the optimizer, as the user gives it.
        lag: the largest lag of a micro-batch in updates; where it is 0 nothing is predicted.
        replicas: of every stage; with several `auto` does not choose what does not go with them.
    """
    if lag == 0:
        return None
    chosen = recipe_for(optimizer, lag) if recipe == AUTO else RECIPES.get(recipe)
    rule: PredictionRule | None = None if chosen is None else chosen.options["prediction_rule"]
    if recipe == AUTO and rule == SPECTRAIN and replicas > 1:
        return None
    return rule


def options_of_recipes() -> frozenset[str]:
    """Return the names of all options that a recipe may set."""
    return frozenset(name for recipe in RECIPES.values() for name in recipe.options)
