"""Contestants of a campaign: strategies at settings of their own, under labels of their own."""

from pathlib import Path
from typing import Any

import pytest
from campaign_folders import campaign

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError

LIVE_AND_REPLAY = [
    "sequential",
    {"fbp": {"weights": "live", "lead": 2}},
    {"fbp": {"name": "fbp-replay", "weights": "replay"}},
]


def steps(**changes: Any) -> Steps:
    return Steps(campaign(repeats=1, **changes), CampaignFolder(Path("results/x")))


def settings_by_label(**changes: Any) -> dict[str, TrainSettings]:
    made = steps(**changes)
    return {trial.contestant: made.settings(name) for name, trial in made.trials.items()}


def own(settings: TrainSettings, name: str) -> object:
    return settings.model_dump()[name]


def refusal(*entries: Any, **changes: Any) -> str:
    with pytest.raises(InputError) as refused:
        check_names(campaign(strategies=list(entries), **changes), "some.yaml")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_one_campaign_compares_a_strategy_at_several_settings() -> None:
    found = settings_by_label(strategies=LIVE_AND_REPLAY, lead=3)
    assert list(found) == ["sequential", "fbp", "fbp-replay"]
    assert (own(found["fbp"], "weights"), own(found["fbp"], "lead")) == ("live", 2)
    assert (own(found["fbp-replay"], "weights"), own(found["fbp-replay"], "lead")) == ("replay", 3)
    trials = steps(strategies=LIVE_AND_REPLAY).trials
    assert len({trial.name for trial in trials.values()}) == 3
    assert [trial.strategy for trial in trials.values()] == ["sequential", "fbp", "fbp"]


@pytest.mark.parametrize("strategy", ["gpipe", "naive", "zb-v", "interleaved-1f1b"])
@pytest.mark.parametrize(("option", "value"), [("lead", 2), ("weights", "replay")])
def test_what_means_nothing_to_a_contestant_is_refused_for_it_alone(
    strategy: str, option: str, value: object
) -> None:
    said = refusal({strategy: {option: value}})
    assert f"{option} is {value}, but it means nothing under --strategy {strategy}" in said
    assert f"{option} is set, but no strategy of the campaign takes it" in refusal(
        strategy, **{option: value}
    )
    # What is set for all concerns those that take it, and is not recorded for the others.
    mixed = {"strategies": ["fbp", strategy], option: value}
    check_names(campaign(**mixed), "some.yaml")
    found = settings_by_label(**mixed)
    assert own(found["fbp"], option) == value
    assert own(found[strategy], option) != value


@pytest.mark.parametrize(
    ("entry", "stages", "said"),
    [
        (
            {"interleaved-1f1b": {"chunks": 2}},
            3,
            "into 6 stages, 2 on each device, but it has 4 layers: use at most 2 devices, or fewer "
            "chunks.",
        ),
        ("zb-v", 3, "into 6 stages, 2 on each device, but it has 4 layers: use at most 2 devices."),
        ("1f1b", 5, "into 5 stages, but it has 4 layers: use at most 4 stages."),
    ],
)
def test_too_many_stages_are_refused_with_what_each_device_holds(
    entry: Any, stages: int, said: str
) -> None:
    assert said in refusal(entry, stages=stages, models=["mlp,layers=4"])


def test_every_option_of_train_is_a_key_of_a_campaign() -> None:
    everything = {
        "last_batch": "keep",
        "drain_at": [2, 5],
        "checkpoint_steps": 4,
        "checkpoint_epochs": 0,
        "data_dir": "somewhere",
        "receive_timeout_seconds": 30,
        "threads": 2,
        "discard_steps": 1,
        "trace_steps": 3,
    }
    lagging = {"prediction": True, "synchronous_tail": 1, "transport": "mpi"}
    found = settings_by_label(strategies=["sequential", "fbp"], **everything, **lagging)
    for settings in found.values():
        document = settings.model_dump(mode="json")
        assert {name: document[name] for name in everything} == everything
    document = found["fbp"].model_dump(mode="json")
    assert {name: document[name] for name in lagging} == lagging
    assert not set(lagging) & set(found["sequential"].model_dump())


def test_a_setting_of_one_contestant_changes_no_other() -> None:
    found = settings_by_label(
        strategies=["sequential", {"1f1b": {"optimizer": {"lr": 0.5}, "steps": 7}}],
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        epochs=3,
    )
    assert found["sequential"].optimizer.lr == 0.01
    assert found["1f1b"].optimizer.model_dump() == {
        **found["sequential"].optimizer.model_dump(),
        "lr": 0.5,
    }
    assert (found["1f1b"].steps, found["1f1b"].epochs) == (7, None)
    assert (found["sequential"].steps, found["sequential"].epochs) == (None, 3)


def test_stages_and_micro_batches_of_a_contestant_reach_its_profile_plan_and_ranks() -> None:
    made = steps(strategies=["fbp", {"fbp": {"name": "deep", "stages": 4, "micro_batches": 8}}])
    usual, deep = made.trials.values()
    assert (usual.ranks, deep.ranks) == (2, 4)
    assert (usual.micro_batch, deep.micro_batch) == (16, 8)
    assert len(made.profiles) == 2
    plans = {step.output: step.arguments for step in made.plans.values()}
    assert len(plans) == 2
    arguments = plans[str(made.settings(deep.name).plan)]
    assert arguments[arguments.index("--stages") + 1] == "4"
    assert arguments[arguments.index("--micro-batches") + 1] == "8"


def test_a_plan_is_made_for_the_schedule_that_runs_it() -> None:
    made = steps(strategies=["gpipe", "1f1b", "deepspeed-1f1b", "fbp"])
    schedules = {
        trial.contestant: step.arguments[step.arguments.index("--schedule") + 1]
        for trial in made.trials.values()
        for step in made.plans.values()
        if step.output == str(made.settings(trial.name).plan)
    }
    assert schedules == {"gpipe": "gpipe", "1f1b": "1f1b", "deepspeed-1f1b": "1f1b", "fbp": "fbp"}


def test_contestants_of_a_resolved_campaign_read_back_as_themselves() -> None:
    original = campaign(strategies=LIVE_AND_REPLAY, prediction=True, lead=2)
    again = campaign_from_document(original.model_dump(mode="json"), "here")
    assert again == original
    assert again.own == {"prediction": True, "lead": 2}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["fbp", {"fbp": {"lead": 2}}], ["two contestants called 'fbp'", "name: fbp-2"]),
        ([{"fbp": {"laed": 2}}], ["fbp has the unknown setting 'laed'", "'lead'"]),
        ([{"gpipe": {"prediction": True}}], ["gpipe", "'prediction'"]),
        ([{"fbp": {"batch_size": 8}}], ["batch_size is set for fbp alone", "all contestants"]),
        ([{"fbp": {"seed": 1}}], ["seed is set for fbp alone"]),
        ([{"fbp": {"lead": 0}}], ["lead", "found 0"]),
        ([{"fbp": {"stages": 1}}], ["stages of fbp is 1", "from 2"]),
        ([{"fbp": {"stages": "2"}}], ["stages of fbp is '2'"]),
        ([{"fbp": {"micro_batches": 5}}], ["64 is not divisible by 5"]),
        ([{"fbp": {"name": ""}}], ["the name ''"]),
        ([{"fbp": {}, "gpipe": {}}], ["strategies has the entry", "{fbp: {lead: 2}}"]),
        ([{"fbp": 3}], ["strategies has the entry"]),
        (["fbp", 3], ["strategies"]),
        ([{"fpb": {"lead": 2}}], ["'fpb'", "did you mean 'fbp'"]),
    ],
)
def test_a_contestant_that_cannot_be_is_refused_in_a_sentence(
    entries: list[Any], words: list[str]
) -> None:
    said = refusal(*entries)
    for word in words:
        assert word in said


def test_expectations_speak_of_labels() -> None:
    expectation = {"metric": "samples_per_second", "relative_to": "sequential", "at_least": 1}
    campaign(strategies=LIVE_AND_REPLAY, expect=[{**expectation, "strategy": "fbp-replay"}])
    with pytest.raises(InputError, match="'fbp-live', which is not among"):
        campaign(strategies=LIVE_AND_REPLAY, expect=[{**expectation, "strategy": "fbp-live"}])


def test_two_metrics_of_one_name_do_not_share_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics_of_one.py").write_text("def mae(outputs, targets):\n    return 1, 2\n")
    (tmp_path / "metrics_of_another.py").write_text(
        "def gain(outputs, targets):\n    return 1, 2\n"
    )
    (tmp_path / "metrics_of_a_third.py").write_text(
        "def gain(outputs, targets):\n    return 3, 4\n"
    )
    monkeypatch.chdir(tmp_path)
    said = refusal("sequential", {"fbp": {"metric": ["metrics_of_one:mae"]}})
    assert "metric of fbp is 'metrics_of_one:mae', which has the name 'mae' as 'mae' does" in said
    said = refusal(
        {"sequential": {"metric": ["metrics_of_another:gain"]}},
        {"fbp": {"metric": ["metrics_of_a_third:gain"]}},
    )
    assert "has the name 'gain' as 'metrics_of_another:gain' does" in said
    alike = {"metric": ["metrics_of_another:gain"]}
    check_names(campaign(strategies=[{"sequential": alike}, {"fbp": alike}]), "some.yaml")
