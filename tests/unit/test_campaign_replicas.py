"""Contestants of a campaign whose devices hold several copies of every stage."""

import pytest
from campaign_folders import campaign
from test_campaign_steps import option, steps

from hpc_lpm.campaign.trials import trials_of
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.errors import InputError

MODEL = "mlp,layers=6,width=8"
TWICE = {"fbp": {"replicas": 2, "micro_batches": 4, "name": "twice"}}


def checked(**changes):
    chosen = campaign(models=[MODEL], datasets=["digits,size=8"], **changes)
    check_names(chosen, "c.yaml")
    return chosen


def test_the_devices_of_a_contestant_are_shared_among_the_copies_of_its_stages():
    chosen = checked(strategies=[TWICE, "fbp", "horovod"], stages=4, batch_size=64)
    twice, once, averaged = trials_of(chosen)[:3]
    assert (twice.ranks, twice.stages, twice.replicas, twice.processes) == (4, 2, 2, 4)
    assert (once.ranks, once.stages, once.replicas) == (4, 4, 1)
    assert (averaged.ranks, averaged.replicas) == (4, 1)
    # 64 samples in 4 micro-batches on each of two copies.
    assert (twice.micro_batch, once.micro_batch) == (8, 16)
    assert "-k4-x2-" in twice.name
    assert "-x" not in once.name


def test_its_plan_has_as_many_stages_as_one_copy_and_its_profile_the_copys_micro_batch():
    made = steps(strategies=[TWICE], stages=4, batch_size=64)
    (plan,), (profile,) = made.plans.values(), made.profiles.values()
    assert option(plan, "--stages") == "2"
    assert option(profile, "--micro-batch") == "8"
    assert profile.ranks == 4
    assert {step.ranks for step in made.runs.values()} == {4}


def test_cuts_are_those_of_one_copy():
    cut = {"fbp": {"replicas": 2, "cuts": [2], "micro_batches": 4}}
    (trial, *_) = trials_of(checked(strategies=[cut], batch_size=64))
    assert (trial.ranks, trial.stages) == (4, 2)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"replicas": 0}, "replicas of fbp is 0, accepted are whole numbers from 1"),
        ({"replicas": "2"}, "replicas of fbp is '2'"),
        ({"replicas": True}, "replicas of fbp is True"),
        ({"replicas": 3}, "its 4 devices can be shared among 1 or 2"),
        ({"replicas": 4}, "its 4 devices can be shared among 1 or 2"),
        ({"replicas": 2, "micro_batches": 64}, "times the 2 replicas"),
        ({"replicas": 2, "stages": 3}, "its 3 devices can be shared among 1"),
    ],
)
def test_what_its_devices_cannot_hold_is_refused(settings, found):
    with pytest.raises(InputError, match=found):
        checked(strategies=[{"fbp": settings}], stages=4, batch_size=64)


def test_what_needs_no_plan_has_no_stages_to_copy():
    with pytest.raises(InputError, match="replicas is set for horovod, but horovod does not cut"):
        checked(strategies=[{"horovod": {"replicas": 2}}], stages=4, batch_size=64)
