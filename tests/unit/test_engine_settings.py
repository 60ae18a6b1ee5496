"""Settings that make no sense are refused with one sentence."""

import pytest

from hpc_lpm.engine.settings import checked_settings, computing_settings
from hpc_lpm.engine.strategies.registry import STRATEGIES, strategy_named
from hpc_lpm.errors import InputError

GOOD = {"model": "mlp", "dataset": "digits", "strategy": "sequential", "epochs": 1}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"batch_size": 10, "micro_batches": 4}, "batch size 10 is not divisible by 4"),
        ({"epochs": None}, "epochs and steps"),
        ({"steps": 3}, "epochs and steps"),
        ({"micro_batches": 0}, "micro_batches"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed: .*9223372036854775807"),
        ({"strategy": "fbp", "lead": 0}, "lead"),
        ({"strategy": "fbp", "weights": "stale"}, "weights.*replay"),
        ({"lead": 2}, "--lead was given with --strategy sequential.* use --strategy fbp"),
        ({"receive_timeout_second": 1}, "did you mean 'receive_timeout_seconds'"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        checked_settings(**{**GOOD, **wrong})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_an_option_is_accepted_where_it_means_something_and_else_at_its_default(name: str) -> None:
    run, strategy = {**GOOD, "strategy": name}, strategy_named(name)
    for option, value, default in (("lead", 2, 1), ("weights", "stash", "live")):
        if strategy.takes(option):
            assert checked_settings(**run, **{option: value}).model_dump()[option] == value
            continue
        with pytest.raises(InputError) as caught:
            checked_settings(**run, **{option: value})
        said = str(caught.value)
        assert f"--{option} " in said
        assert f"--strategy {name}" in said
        advised = said.split("or use --strategy ")[1].rstrip(".").split(" or ")
        assert advised == [each for each, entry in STRATEGIES.items() if entry.takes(option)]
        if option in strategy.options.model_fields:
            assert f"--{option} is {value}, but it means nothing under" in said
            settings = checked_settings(**run, **{option: default})
            assert settings.model_dump()[option] == default


def test_schedules_say_under_which_strategies_lead_and_weights_mean_something() -> None:
    taken = {
        option: {name for name, each in STRATEGIES.items() if each.takes(option)}
        for option in ("lead", "weights")
    }
    assert taken == {"lead": {"fbp", "1f1b"}, "weights": {"fbp"}}


def test_the_micro_batch_size_is_the_batch_divided() -> None:
    assert checked_settings(**GOOD, batch_size=60, micro_batches=5).micro_batch_size == 12


def test_what_a_strategy_has_of_its_own_is_told_apart_in_resuming_by_what_it_computes() -> None:
    run = {**GOOD, "strategy": "fbp"}
    document = checked_settings(**run, lead=2, transport="mpi").model_dump(mode="json")
    assert (document["lead"], document["transport"]) == (2, "mpi")
    computing = computing_settings(document)
    assert computing["lead"] == 2
    assert computing["optimizer.lr"] == 0.1
    assert not {"transport", "plan", "threads"} & computing.keys()
    assert not [name for name in computing if name.startswith("own")]
    assert checked_settings(**document) == checked_settings(**run, lead=2, transport="mpi")
