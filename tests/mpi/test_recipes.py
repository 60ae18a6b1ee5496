"""A run under a recipe ends in the bits of one whose options were given, and can be repeated."""

from pathlib import Path

import pytest

from tests.mpi.test_exactness import MLP, case, train_cases

pytestmark = pytest.mark.mpi

ADAMW = {"name": "adamw", "lr": 0.01}
SECOND_ORDER = {"prediction": True, "prediction_rule": "second-order"}


def test_a_recipe_is_the_options_that_it_sets_and_the_result_repeats_it(tmp_path: Path) -> None:
    run = case(MLP, "fbp", 2, 2, 6, optimizer=ADAMW)
    cases = [{**run, "recipe": "auto"}, {**run, **SECOND_ORDER}, run]
    chosen, given, plain = train_cases(2, [*map(dict, cases)], tmp_path)
    assert chosen["weights_sha256"] == given["weights_sha256"] != plain["weights_sha256"]
    assert chosen["recipe"].startswith("recipe auto chooses second-order")
    assert plain["recipe"] is None
    settings = chosen["settings"]
    assert settings.items() >= SECOND_ORDER.items()
    del settings["plan"]
    (again,) = train_cases(2, [{**settings, "cuts": run["cuts"]}], tmp_path)
    assert again["weights_sha256"] == chosen["weights_sha256"]
