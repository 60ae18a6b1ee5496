"""What a tuning may try of a contestant, what it keeps, and what its choice changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from campaign_folders import campaign

from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.config import Campaign, campaign_from_document
from hpc_lpm.campaign.contestants import contestant_of, contestant_settings
from hpc_lpm.campaign.damage import damaged_steps, damaged_trials
from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identities import identities_of
from hpc_lpm.campaign.launching import launch_trial
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.tuning.candidates import candidates_for, candidates_of
from hpc_lpm.campaign.tuning.short_trainings import STEPS
from hpc_lpm.campaign.tuning.table import COLUMNS, tuning_rows
from hpc_lpm.campaign.tuning.tune import short_settings
from hpc_lpm.campaign.tuning.tuned import NOT_REACHED, TriedCandidate, Tuned
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.errors import InputError


def tried(chosen: Campaign, label: str) -> list[dict[str, Any]]:
    contestant = next(each for each in chosen.contestants if each.label == label)
    return [
        {**each.options, **({"style": each.style} if each.style else {})}
        for each in candidates_of(chosen, contestant)
    ]


def values(found: list[dict[str, Any]], name: str) -> set[Any]:
    return {each[name] for each in found if name in each}


def test_a_contestant_is_tried_as_it_is_before_all_others() -> None:
    chosen = campaign(tune=True)
    for contestant in chosen.contestants:
        assert tried(chosen, contestant.label)[0] == {}


def test_what_a_strategy_calls_tunable_is_tried() -> None:
    chosen = campaign(strategies=["fbp", "horovod", "ddp"], tune=True)
    assert values(tried(chosen, "fbp"), "lead") == {2, 3}
    assert values(tried(chosen, "horovod"), "cycle_time_milliseconds") == {2.0, 20.0}
    assert values(tried(chosen, "horovod"), "fusion_megabytes") == {1.0, 8.0}
    assert values(tried(chosen, "ddp"), "bucket_megabytes") == {1.0, 100.0}
    for label in ("fbp", "horovod", "ddp"):
        assert values(tried(chosen, label), "style") == {"bound", "spinning"}
        assert {2, 8} <= values(tried(chosen, label), "micro_batches")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"micro_batches": 4}, "micro_batches"),
        ({"strategies": [{"fbp": {"micro_batches": 4}}]}, "micro_batches"),
        ({"lead": 1}, "lead"),
        ({"strategies": [{"fbp": {"weights": "live"}}]}, "weights"),
        ({"launcher": {"options": ["--bind-to", "none"]}}, "style"),
    ],
)
def test_what_the_file_sets_stays_even_where_it_is_the_default(
    changes: dict[str, Any], name: str
) -> None:
    assert values(tried(campaign(**{"strategies": ["fbp"], "tune": True}), "fbp"), name)
    chosen = campaign(**{"strategies": ["fbp"], "tune": True} | changes)
    # As the jobs of a call read it.
    read = campaign_from_document(json.loads(chosen.model_dump_json()), "a call")
    for each in (chosen, read):
        assert not values(tried(each, "fbp"), name)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_accepts_what_it_offers_to_be_tried(name: str) -> None:
    chosen = campaign(strategies=[{name: {"tune": True}}], stages=2)
    (contestant,) = chosen.contestants
    check_names(chosen, "a test")
    found = candidates_of(chosen, contestant)
    assert len(found) > 1 or not contestant.entry.tunable(contestant_settings(chosen, contestant))
    for each in found:
        tried_one = chosen.model_copy(
            update={"strategies": [{name: {**contestant.overrides, **each.options}}]}
        )
        check_names(tried_one, "a test")
        own = contestant_settings(chosen, each.of(contestant)).own
        assert all(contestant.entry.takes(option) for option in own.model_fields_set)


def test_chunks_are_tried_where_the_schedule_takes_them_and_the_layers_are_enough() -> None:
    chosen = campaign(strategies=["interleaved-1f1b", "zb-v", "1f1b"], tune=True, stages=4)
    interleaved, folded, plain = chosen.contestants
    # Two chunks are the usual number.
    assert values(tried(chosen, interleaved.label), "chunks") == {3, 4}
    assert not values(tried(chosen, folded.label), "chunks")
    assert not values(tried(chosen, plain.label), "chunks")
    for layers, accepted in ((16, {3, 4}), (15, {3}), (12, {3}), (11, set()), (4, set())):
        found = candidates_for(chosen, interleaved, layers)
        assert {each.options["chunks"] for each in found if "chunks" in each.options} == accepted
        assert found[0].options == {}
    assert len(candidates_for(chosen, plain, 4)) == len(candidates_of(chosen, plain))


def test_chunks_that_cuts_of_ones_own_rule_out_are_not_tried() -> None:
    cut = {"interleaved-1f1b": {"cuts": list(range(1, 12)), "chunks": 3, "tune": True}}
    assert not values(tried(campaign(strategies=[cut]), "interleaved-1f1b"), "chunks")
    del cut["interleaved-1f1b"]["chunks"]
    assert not values(tried(campaign(strategies=[cut]), "interleaved-1f1b"), "chunks")


def test_a_table_is_tried_with_its_own_micro_batches_alone(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    name = f"schedule:{tmp_path}/table.csv"
    usual = contestant_of({name: {"name": "table"}})
    chosen = campaign(
        strategies=[{name: {"name": "table", "micro_batches": 2}}], stages=2, tune=True
    )
    check_names(chosen, "a test")
    chosen = campaign(strategies=[{name: {"name": "table"}}], tune=True)
    with pytest.raises(InputError, match=r"2 devices and 4 micro-batches .* a table of 2 and 2"):
        check_names(chosen, "a test")
    offered = candidates_of(chosen, usual)
    assert {each.options["micro_batches"] for each in offered[1:]} == {2}


@pytest.mark.parametrize(
    ("lines", "stages", "micro_batches"),
    [(["0F0,0B0"], 2, 1), (["0F0,0B0", "1F0,1B0"], 3, 1), (["0F0,0B0", "1F0,1B0"], 2, 4)],
)
def test_a_table_of_other_devices_or_micro_batches_is_refused_before_anything_runs(
    tmp_path: Path, lines: list[str], stages: int, micro_batches: int
) -> None:
    (tmp_path / "table.csv").write_text("\n".join(lines))
    name = f"schedule:{tmp_path}/table.csv"
    chosen = campaign(strategies=[name], stages=stages, micro_batches=micro_batches)
    with pytest.raises(InputError, match=rf"there are {stages} devices and {micro_batches} micro"):
        check_names(chosen, "a test")


def test_a_strategy_that_offers_what_it_does_not_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "offering.py").write_text(
        "from hpc_lpm.engine.strategies.sequential import Sequential\n"
        "class Offers(Sequential):\n"
        "    def tunable(self, settings):\n"
        "        return {'leed': (1, 2)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    chosen = campaign(strategies=["offering:Offers"], tune=True)
    with pytest.raises(InputError, match=r"tunable of strategy offering:Offers offers 'leed', .*;"):
        check_names(chosen, "a test")


def test_settings_that_a_strategy_refuses_are_not_tried() -> None:
    """Data parallelism on 4 ranks takes no 2 micro-batches."""
    shared = campaign(strategies=["ddp", "sequential"], stages=4, tune=True)
    assert values(tried(shared, "ddp"), "micro_batches") == {8, 16}
    assert values(tried(shared, "sequential"), "micro_batches") == {2, 8, 16}


def test_a_tuning_may_be_asked_of_all_or_of_one() -> None:
    budget = {"budget_seconds": "2m"}
    asked = {
        "all": campaign(strategies=["sequential", {"fbp": {"tune": False}}], tune=True),
        "one": campaign(strategies=["sequential", {"fbp": {"tune": budget}}]),
    }
    found = {}
    for name, chosen in asked.items():
        steps = Steps(chosen, CampaignFolder(Path()))
        tunings = {trial.strategy: steps.tuning(trial) for trial in steps.trials.values()}
        found[name] = {who: each and each.budget_seconds for who, each in tunings.items()}
        assert len(steps.tunings) == 1
    assert found == {
        "all": {"sequential": 60, "fbp": None},
        "one": {"sequential": None, "fbp": 120},
    }


@pytest.mark.parametrize("wrong", ["soon", 3, {"budget": 3}, {"budget_seconds": -1}])
def test_a_tuning_that_is_no_tuning_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="tune"):
        Steps(campaign(strategies=[{"fbp": {"tune": wrong}}]), CampaignFolder(Path()))


def test_trials_wait_for_the_tuning_and_the_tuning_for_every_profile() -> None:
    steps = Steps(campaign(strategies=["fbp"], tune=True), CampaignFolder(Path("results/c")))
    assert steps.plans == {}
    (tuning,) = steps.tunings.values()
    assert set(tuning.inputs) == {profile.output for profile in steps.profiles.values()}
    assert len(tuning.inputs) == 4  # micro-batches of 8, 16, 32 and 4
    for run in steps.runs.values():
        assert tuning.output in run.inputs


def tuned(options: dict[str, Any], style: str | None = None) -> Tuned:
    usual = TriedCandidate(
        options={},
        style=None,
        rounds=1,
        steps=4,
        step_seconds=0.2,
        steps_ratio=1.0,
        failure=None,
    )
    better = usual.model_copy(
        update={"options": options, "style": style, "rounds": 2, "step_seconds": 0.1}
    )
    late = usual.model_copy(
        update={"rounds": 0, "steps": 0, "step_seconds": None, "failure": NOT_REACHED}
    )
    return Tuned(
        contestant="fbp",
        model="resnet20",
        dataset="digits",
        planner="lpm",
        budget_seconds=60,
        trained_seconds=58,
        seconds=70,
        candidates=(usual, better, late),
        chosen=1,
    )


def called(tmp_path: Path, **changes: Any) -> tuple[Call, Steps]:
    chosen = campaign(**{"strategies": ["fbp"], "tune": True, "repeats": 1} | changes)
    steps = Steps(chosen, CampaignFolder(tmp_path / "synthetic"))
    call = Call.of(chosen, identities_of(steps, Fingerprints()))
    return call, call.steps(tmp_path)


def test_trials_train_with_what_was_chosen_and_their_records_tell(tmp_path: Path) -> None:
    call, steps = called(tmp_path)
    (name, trial), *_ = steps.trials.items()
    assert steps.settings(name).micro_batches == 4
    tuned({"micro_batches": 8, "lead": 2}).write(steps.folder.tuned(trial))
    again = call.steps(tmp_path)
    assert again.settings(name).micro_batches == 8
    assert again.settings(name).own.lead == 2  # type: ignore[attr-defined]
    # Neither names nor what is to be made depends on it.
    assert again.folder.run(name) == steps.folder.run(name)
    assert (again.profiles, again.tunings, again.runs) == (
        steps.profiles,
        steps.tunings,
        steps.runs,
    )
    assert "microbatch8" in again.profile_path(trial).name


def test_the_identity_of_a_run_depends_on_what_was_chosen(tmp_path: Path) -> None:
    call, steps = called(tmp_path)
    (name, trial), *_ = steps.trials.items()
    digests = set()
    for choice in (tuned({"lead": 2}), tuned({"lead": 3}), tuned({}, "bound"), tuned({})):
        choice.write(steps.folder.tuned(trial))
        from hpc_lpm.campaign.launching import _identity_of

        digests.add(_identity_of(call.steps(tmp_path), name, call).digest)
    assert len(digests) == 4


def test_folders_are_named_after_what_was_asked_for(tmp_path: Path) -> None:
    plain = called(tmp_path, tune=False)[0].identities.runs
    short = called(tmp_path)[0].identities.runs
    long = called(tmp_path, tune={"budget_seconds": 61})[0].identities.runs
    (name,) = plain
    assert len({each[name].digest for each in (plain, short, long)}) == 3


def test_a_result_of_another_choice_is_trained_again(tmp_path: Path) -> None:
    from campaign_folders import write_run

    call, steps = called(tmp_path)
    (name, trial), *_ = steps.trials.items()
    tuned({"lead": 2}).write(steps.folder.tuned(trial))
    write_run(steps.folder, steps.campaign, trial)
    assert damaged_trials(call.steps(tmp_path)) == {}
    tuned({"lead": 3}).write(steps.folder.tuned(trial))
    assert "lead" in damaged_trials(call.steps(tmp_path))[name]
    steps.folder.tuned(trial).unlink()
    assert "tuning" in damaged_trials(call.steps(tmp_path))[name]


def test_a_tuning_whose_plan_is_gone_is_made_again(tmp_path: Path) -> None:
    _, steps = called(tmp_path)
    (trial,) = steps.trials.values()
    tuned({}).write(steps.folder.tuned(trial))
    assert list(damaged_steps(steps)) == [str(steps.folder.tuned(trial))]


def test_no_trial_starts_without_its_tuning(tmp_path: Path) -> None:
    _, steps = called(tmp_path)
    (name,) = steps.trials
    with pytest.raises(InputError, match="not there or damaged"):
        launch_trial(steps, name, ["train"], 2, "mpirun", tmp_path / "log", print)


def test_nothing_that_is_said_of_a_whole_run_has_its_short_trainings_refused() -> None:
    parts = {"synchronous_head": "20steps", "synchronous_tail": "2epochs"}
    chosen = campaign(
        strategies=[{"fbp": parts}],
        learning_rate={"schedule": "cosine", "warmup_steps": 20},
        non_finite="rewind",
        trace_from=20,
        epochs=9,
    )
    (contestant,) = chosen.contestants
    short = checked_settings(**short_settings(contestant_settings(chosen, contestant)))
    run = PlannedRun(
        short,
        model=None,
        ranks=2,
        stages=2,
        samples=640,
        steps=short.steps,
        epochs=1,
        steps_an_epoch=10,
    )
    check_run(run)
    own = short.own.model_dump()
    assert (own["synchronous_head"], own["synchronous_tail"]) == (0, 0)
    assert (short.steps, short.learning_rate.warmup_steps) == (STEPS, STEPS - 1)
    assert short.learning_rate.schedule == "cosine"


def test_the_report_tells_what_each_contestant_was_given_and_chose() -> None:
    (row,) = tuning_rows({"one": tuned({"micro_batches": 8}, "bound")})
    told = dict(zip(COLUMNS, row, strict=True))
    assert told["given, s"] == "60"
    assert told["tried"] == "2 of 3"
    assert told["raced with"] == "micro_batches 8, ranks bound"
    assert told["of that as it is"] == "0.50"
