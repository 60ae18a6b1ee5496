from pathlib import Path

import pytest
import typer
from campaign_folders import campaign

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Step, Steps
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register

register([])


def steps(**changes: object) -> Steps:
    return Steps(campaign(**changes), CampaignFolder(Path("results/my campaign")))


def option(step: Step, name: str) -> str:
    return step.arguments[step.arguments.index(name) + 1]


@pytest.mark.parametrize("length", [{"epochs": 3}, {"epochs": None, "steps": 9}])
def test_the_command_line_accepts_every_step(length: dict[str, object]) -> None:
    made = steps(data_dir="/data", **length)
    group = typer.main.get_command(app)
    for step in [*made.profiles.values(), *made.plans.values(), *made.runs.values()]:
        name, *arguments = step.arguments
        command = group.commands[name]  # type: ignore[attr-defined]
        parsed = command.make_context(name, arguments)
        assert str(parsed.params["out"]) == step.output


def test_only_the_plan_of_a_strategy_that_replays_counts_replays() -> None:
    replayed = {"fbp": {"weights": "replay"}}
    plans = steps(strategies=[replayed, "deepspeed-1f1b"]).plans
    weights = {name.rsplit("lpm-")[1]: option(step, "--weights") for name, step in plans.items()}
    assert weights == {"fbp": "replay", "deepspeed-1f1b": "live"}


def test_a_strategy_whose_transfers_block_gets_the_plan_that_is_best_for_that() -> None:
    plans = steps(strategies=["fbp", "1f1b", "deepspeed-1f1b"]).plans
    blocking = {name.rsplit("lpm-")[1]: "--no-overlap" in s.arguments for name, s in plans.items()}
    assert blocking == {"fbp": False, "1f1b": False, "deepspeed-1f1b": True}


def test_seeds_and_repeats_share_profile_and_plan() -> None:
    made = steps(strategies=["fbp"], seeds=[0, 1], repeats=3)
    assert (len(made.profiles), len(made.plans), len(made.runs)) == (1, 1, 6)


def test_a_trial_waits_for_its_plan_and_for_the_profile_that_tells_what_it_needs() -> None:
    made = steps()
    (profile,) = (profile.output for profile in made.profiles.values())
    for name, step in made.runs.items():
        if made.trials[name].planner:
            assert step.inputs == (str(made.settings(name).plan), profile)
            plan = next(plan for plan in made.plans.values() if plan.output == step.inputs[0])
            assert plan.inputs == (profile,)
        else:
            assert step.inputs == (profile,)


def test_every_trial_goes_on_from_its_checkpoint() -> None:
    assert all("--resume" in step.arguments for step in steps().runs.values())


def test_without_pipelined_strategies_nothing_is_profiled() -> None:
    made = steps(strategies=["sequential"])
    assert not made.profiles
    assert not made.plans


def test_options_on_lagged_weights_reach_fbp_alone() -> None:
    made = steps(strategies=["fbp", "deepspeed-1f1b"], prediction=True, synchronous_tail=1)
    for name, trial in made.trials.items():
        document = made.settings(name).model_dump()
        lags = trial.strategy == "fbp"
        assert document.get("prediction", False) == lags
        assert document.get("synchronous_tail", 0) == int(lags)


def test_profile_and_training_compute_in_the_same_format() -> None:
    made = steps(precision="bf16", memory_format="channels_last")
    for step in made.profiles.values():
        assert option(step, "--precision") == "bf16"
        assert option(step, "--memory-format") == "channels_last"
    for name in made.trials:
        assert made.settings(name).precision == "bf16"
        assert made.settings(name).memory_format == "channels_last"
