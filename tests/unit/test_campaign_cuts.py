"""Campaigns with cuts of the user's own, and with cuts at some places only."""

from pathlib import Path

import pytest
from campaign_folders import campaign
from test_campaign_steps import option, steps

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.trials import trials_of
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.errors import InputError

MODEL = "mlp,layers=6,width=8"


def checked(**changes):
    chosen = campaign(models=[MODEL], datasets=["digits,size=8"], **changes)
    check_names(chosen, "c.yaml")
    return chosen


def test_cuts_say_how_many_stages_there_are():
    strategies = ["sequential", "fbp", "horovod"]
    chosen = checked(strategies=strategies, cuts=[2, "hidden4"], batch_size=48, micro_batches=3)
    assert chosen.stages == 3
    trials = {trial.strategy: trial for trial in trials_of(chosen)}
    assert (trials["fbp"].planner, trials["fbp"].ranks, trials["fbp"].label) == ("own", 3, "fbp")
    assert (trials["horovod"].planner, trials["horovod"].ranks) == (None, 3)
    assert "-fbp-own-k3-" in trials["fbp"].name
    again = campaign_from_document(chosen.model_dump(mode="json"), "campaign.json")
    assert again == chosen


def test_the_plan_of_a_campaign_with_cuts_is_made_with_them():
    (plan,) = steps(strategies=["fbp"], cuts=[4, "group2.block1"]).plans.values()
    assert option(plan, "--cuts") == "4,group2.block1"
    assert option(plan, "--stages") == "3"
    assert "--planner" not in plan.arguments
    (plan,) = steps(strategies=["fbp"], cut_only_at=["group*", "type:A"]).plans.values()
    assert option(plan, "--cut-only-at") == "group*,type:A"
    assert option(plan, "--planner") == "lpm"


def test_cuts_of_a_schedule_with_several_stages_a_device_make_as_many_devices_as_they_fill():
    folded = {"zb-v": {"name": "folded", "cuts": [1, 3, 4]}}
    looped = {"interleaved-1f1b": {"name": "looped", "cuts": [1, 2, 3, 4, 5], "chunks": 3}}
    made = steps(strategies=["fbp", folded, looped], stages=2, micro_batches=4, batch_size=16)
    ranks = {trial.label: trial.ranks for trial in made.trials.values()}
    assert ranks == {"fbp": 2, "folded": 2, "looped": 2}
    given = {
        option(plan, "--cuts"): plan for plan in made.plans.values() if "--cuts" in plan.arguments
    }
    assert {cuts: option(plan, "--stages") for cuts, plan in given.items()} == {
        "1,3,4": "2",
        "1,2,3,4,5": "2",
    }


def test_a_contestant_may_have_cuts_of_its_own_beside_one_whose_cuts_are_searched():
    mine = {"fbp": {"name": "mine", "cuts": [4]}}
    apart = {"fbp": {"name": "apart", "cut_only_at": ["group*"]}}
    made = steps(strategies=["fbp", mine, apart], planners=["lpm", "uniform"])
    labels = {trial.label: trial.planner for trial in made.trials.values()}
    assert labels == {
        "fbp (lpm)": "lpm",
        "fbp (uniform)": "uniform",
        "mine": "own",
        "apart (lpm)": "lpm",
        "apart (uniform)": "uniform",
    }
    assert len(made.plans) == 5
    given = [option(plan, "--cuts") for plan in made.plans.values() if "--cuts" in plan.arguments]
    assert given == ["4"]
    searched = {"fbp": {"name": "searched", "cuts": []}}
    made = steps(strategies=["fbp", searched], cuts=[4])
    assert {trial.label: trial.planner for trial in made.trials.values()} == {
        "fbp": "own",
        "searched": "lpm",
    }


def test_own_cuts_are_compared_with_those_of_every_planner():
    mine = {"fbp": {"name": "mine", "cuts": [4]}}
    chosen = campaign(strategies=["fbp", mine], planners=["lpm", "uniform"])
    entrants = {who.label: who for who in map(Entrant.of, trials_of(chosen))}
    assert entrants["mine"].meets(entrants["fbp (lpm)"])
    assert entrants["fbp (uniform)"].meets(entrants["mine"])
    assert not entrants["fbp (lpm)"].meets(entrants["fbp (uniform)"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cuts": [6]}, "cuts has the position 6, accepted for the 6 layers"),
        ({"cuts": ["hiden2"]}, "cuts names 'hiden2', .*, did you mean 'hidden2'"),
        ({"cuts": [3, 2]}, "ascend"),
        ({"cuts": ["a,b"]}, "cuts of fbp is .*accepted is a list of positions and names"),
        ({"cuts": [2], "cut_only_at": ["hidden3"]}, "which cut_only_at hidden3 does not allow"),
        ({"cut_only_at": ["hiden*"]}, "cut_only_at has the pattern 'hiden\\*'"),
        ({"cut_only_at": ["hidden1"], "stages": 3}, "cut_only_at hidden1 allows 1 cut"),
        ({"strategies": [{"fbp": {"cuts": 3}}]}, "cuts of fbp is 3, accepted is a list"),
        ({"strategies": [{"fbp": {"cuts": [2], "stages": 3}}]}, "its cuts 2 make 2 stages"),
        ({"strategies": [{"fbp": {"cut_only_at": [3]}}]}, r"cut_only_at of fbp is \[3\]"),
        ({"strategies": [{"sequential": {"cuts": [3]}}]}, "sequential does not cut the model"),
        (
            {"strategies": [{"zb-v": {"cuts": [2, 4]}}]},
            "cuts of zb-v make 3 stages, but it holds 2",
        ),
        ({"strategies": ["fbp", "zb-v"], "cuts": [3]}, "but zb-v holds 2 on each: give it cuts of"),
        ({"strategies": ["sequential"], "cuts": [3]}, "no strategy of the campaign cuts the model"),
    ],
)
def test_cuts_that_do_not_fit_are_found_before_anything_runs(changes, sentence):
    with pytest.raises(InputError, match=f"campaign file c.yaml: .*{sentence}"):
        checked(**{"strategies": ["fbp"], **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cuts": [2], "planners": ["uniform"]}, "cuts and planners are both set"),
        ({"cuts": [2, 4]}, "stages is 2, but cuts 2, 4 make 3 stages"),
        ({"cuts": "4,9"}, "cuts: accepted is a list, found '4,9'"),
    ],
)
def test_a_campaign_file_whose_keys_contradict_each_other_is_refused(changes, sentence):
    document = {**campaign().model_dump(mode="json"), "stages": 2, **changes}
    with pytest.raises(InputError, match=sentence):
        campaign_from_document(document, str(Path("c.yaml")))


def test_classes_of_layers_are_left_to_the_profile_where_the_model_does_not_tell_them():
    assert checked(strategies=["fbp"], cut_only_at=["type:Anything"]).cut_only_at
