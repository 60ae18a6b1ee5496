"""The methods that the delay benchmark trains pipelines by, told from their corrections."""

import json
from typing import Any

from hpc_lpm.engine.pipeline.options import LaggingOptions, PassRules
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.engine.strategies.scheduled import Scheduled
from hpc_lpm.options import DOUBLE_BUFFER, LAG_OF_DOUBLE_BUFFER

_METHOD = "strategy"


def method_of(corrections: str) -> dict[str, Any]:
    """Return the strategy with its options: FBP under `live`, unless corrections say otherwise."""
    options = json.loads(corrections)
    return options if _METHOD in options else {_METHOD: "fbp", "weights": "live", **options}


def named(corrections: str) -> str:
    """Return the text of corrections in tables, such as `recipe auto`, or a rival's name."""
    options = json.loads(corrections)
    rival = [options.pop(_METHOD)] if _METHOD in options else []
    return ", ".join([*rival, *(f"{name} {value}" for name, value in options.items())])


def rules_of(corrections: str) -> tuple[PassRules, str]:
    """Return the lead, the weight policy and the factor of gradients, and the recipe."""
    settings = TrainSettings.model_validate(
        {"model": "any", "dataset": "any", "steps": 1, **method_of(corrections)}
    )
    strategy = strategy_named(settings.strategy)
    assert isinstance(strategy, Scheduled)
    return strategy.pass_rules(settings), LaggingOptions.of(settings.own).recipe


def first_stage_lag(corrections: str, stages: int, micro_batches: int) -> float:
    """Return the updates by which the first stage lags on average."""
    rules, _ = rules_of(corrections)
    if rules.weights == DOUBLE_BUFFER:
        return LAG_OF_DOUBLE_BUFFER
    return rules.lead * (stages - 1) / micro_batches
