"""Recipes set what the user has left open, say what they chose, and can be repeated."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.contestants import contestant_settings, contestants_of
from hpc_lpm.engine.checkpoint.longer import continues_exactly
from hpc_lpm.engine.checkpoint.store import FOLDER, Checkpoint
from hpc_lpm.engine.one_process.play import play_ranks
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError
from hpc_lpm.options import OptimizerSettings
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.prediction_rules import OF_ANY_OPTIMIZER, SPECTRAIN, rule_of
from hpc_lpm.recipes import RECIPES, recipe_for

ADAMW = {"name": "adamw", "lr": 0.001}
RUN: dict[str, Any] = {
    **{"model": "mlp", "dataset": "digits", "strategy": "fbp", "steps": 20, "optimizer": ADAMW},
}


def resolved(
    stages: int = 8, replicas: int = 1, **options: object
) -> tuple[TrainSettings, dict[str, Any], str]:
    settings = checked_settings(**{**RUN, **options})
    run = PlannedRun(settings, None, stages * replicas, stages, steps=20, epochs=1)
    found, said = strategy_named(settings.strategy).with_recipe(run)
    return found, json.loads(found.model_dump_json()), said or ""


def without_recipe(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "recipe"}


def test_without_a_recipe_nothing_is_chosen() -> None:
    settings, document, said = resolved()
    assert settings == checked_settings(**RUN)
    assert (document["recipe"], said) == ("none", "")


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_sets_its_options_and_no_others(name: str) -> None:
    of_sgd = {"optimizer": {"name": "momentum"}} if name == "spectrain" else {}
    _, document, said = resolved(recipe=name, **of_sgd)
    _, plain, _ = resolved(**of_sgd)
    assert without_recipe(document) == without_recipe({**plain, **RECIPES[name].options})
    assert said.startswith(f"recipe {name} ")


def test_auto_takes_the_recipe_of_the_optimizer_at_the_largest_lag() -> None:
    for stages, micro_batches, lead, lag in [(2, 4, 1, 1), (8, 4, 1, 2), (8, 4, 2, 4)]:
        for optimizer in ("adamw", "AdamW", "adam", "muon", "momentum", "Momentum"):
            recipe = recipe_for(optimizer, lag)
            assert recipe is not None
            _, document, said = resolved(
                stages,
                **{"recipe": "auto", "lead": lead, "micro_batches": micro_batches},
                optimizer={"name": optimizer},
            )
            assert document["recipe"] == "auto"
            assert {name: document[name] for name in recipe.options} == dict(recipe.options)
            assert f"auto chooses {recipe.name}" in said
            assert f"{optimizer} lags by up to {lag} update" in said
    assert recipe_for("adamw", 2) != recipe_for("muon", 2) != recipe_for("muon", 3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strategy": "1f1b"}, "flushes at every step"),
        ({"optimizer": {"name": "adagrad"}}, "no correction is known to help"),
        # What was measured for AdamW says nothing of these.
        ({"optimizer": {"name": "NAdam"}}, "no correction is known to help"),
        ({"optimizer": {"name": "adam_tools:plain"}}, "no correction is known to help"),
        ({"optimizer": {"name": "sgd"}}, "no correction is known to help"),
        ({"optimizer": {"name": "momentum"}, "replicas": 2}, "spectrain"),
        ({"prediction": False}, "prediction False was given"),
        ({"stages": 1}, "lags by up to 0 updates"),
    ],
)
def test_auto_says_why_it_chooses_nothing(options: dict[str, Any], why: str) -> None:
    _, document, said = resolved(**{**options, "recipe": "auto"})
    _, plain, _ = resolved(**options)
    assert without_recipe(document) == without_recipe(plain)
    assert said.startswith("recipe auto chooses nothing, since ")
    assert why in said


def test_what_the_user_gave_stays_even_if_it_is_the_default() -> None:
    given = {"prediction": True, "prediction_rule": "last-update"}
    _, document, said = resolved(recipe="second-order", **given)
    assert (document["prediction"], document["prediction_rule"]) == (True, "last-update")
    assert said.endswith("what was given stays: prediction_rule last-update")
    _, document, _ = resolved(recipe="auto", prediction=False)
    assert (document["prediction"], document["prediction_rule"]) == (False, None)


def test_a_rule_that_the_user_gave_is_that_of_the_prediction_which_a_recipe_sets() -> None:
    for recipe in ("auto", "second-order"):
        _, document, said = resolved(recipe=recipe, prediction_rule="last-update")
        assert (document["prediction"], document["prediction_rule"]) == (True, "last-update")
        assert said.endswith("what was given stays: prediction_rule last-update")
    # Where nothing lags, nothing is predicted by it.
    _, document, said = resolved(1, recipe="auto", prediction_rule="last-update")
    assert (document["prediction"], document["prediction_rule"]) == (False, None)
    for given in ({}, {"recipe": "auto", "prediction": False}):
        with pytest.raises(InputError, match="last-update without prediction, which it is a rule"):
            resolved(prediction_rule="last-update", **given)


def test_the_settings_of_a_result_repeat_the_run_wherever_it_is_started() -> None:
    settings, document, _ = resolved(recipe="auto")
    again, repeated, _ = resolved(stages=16, **{**document, "steps": 20, "epochs": None})
    assert again == settings
    assert repeated == document


def test_a_campaign_leaves_the_choice_to_each_run() -> None:
    document = {
        **{"name": "recipes", "models": ["mlp"], "datasets": ["digits"], "steps": 20},
        **{"strategies": ["sequential", "1f1b", "fbp"], "recipe": "auto", "optimizer": ADAMW},
    }
    campaign = campaign_from_document(document, str(Path("here.yaml")))
    _, flushing, lagging = (
        contestant_settings(campaign, each) for each in contestants_of(campaign.strategies)
    )
    written = json.loads(lagging.model_dump_json())
    assert written["recipe"] == "auto"
    assert not {"prediction", "prediction_rule"} & written.keys()
    run = PlannedRun(checked_settings(**written), None, 8, 8, steps=20, epochs=1)
    assert strategy_named("fbp").with_recipe(run)[0].own.prediction
    assert json.loads(flushing.model_dump_json())["recipe"] == "auto"


def test_a_longer_run_under_the_same_recipe_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    stages = tuple(
        StagePlan(start=a, stop=a + 1, compute_seconds=0, send_bytes=0, memory_bytes=0)
        for a in range(3)
    )
    Plan(
        **{"planner": "by hand", "model": "mlp", "stages": stages, "period_seconds": 0},
        **{"boundary_bytes": 0, "profile_sha256": ""},
    ).write(plan)
    run = {
        **{**RUN, "model": "mlp,width=8,layers=3", "dataset": "digits,size=8", "plan": str(plan)},
        **{"recipe": "auto", "in_one_process": True, "steps": 2, "micro_batches": 1},
    }
    short = checked_settings(**run)
    results = play_ranks(3, 60, lambda job: Training(short, job).run(tmp_path, None))
    assert results[0] is not None
    assert (results[0].recipe or "").startswith("recipe auto chooses second-order")
    checkpoint = Checkpoint.newest(tmp_path / FOLDER)
    assert checkpoint is not None
    longer = {**run, "steps": 3, "drain_at": ()}
    assert not continues_exactly(checkpoint, checked_settings(**longer)), "it would not drain there"
    assert continues_exactly(checkpoint, short)
    with pytest.raises(InputError, match="saved with prediction"):
        continues_exactly(checkpoint, checked_settings(**{**run, "prediction": False}))


def test_an_unknown_recipe_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError) as refused:
        checked_settings(**RUN, recipe="second-oder")
    for word in ("'second-oder'", "did you mean 'second-order'", "auto, none", *RECIPES):
        assert word in str(refused.value)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "momentum"])
def test_capitals_in_the_name_of_an_optimizer_change_no_rule(name: str) -> None:
    assert rule_of(None, OptimizerSettings(name=name)) == SPECTRAIN
    assert rule_of(None, OptimizerSettings(name="AdamW")) == OF_ANY_OPTIMIZER
