import pytest
from campaign_folders import campaign

from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.campaign.trials import file_name, trials_of


def test_contestants_take_turns() -> None:
    order = [trial.strategy for trial in trials_of(campaign(repeats=3))]
    assert order == 3 * ["sequential", "deepspeed-1f1b", "fbp", "horovod"]


def test_the_matrix_is_the_product_of_everything_that_varies() -> None:
    chosen = campaign(
        models=["resnet20", "mlp"],
        datasets=["digits", "mnist5k"],
        planners=["lpm", "uniform"],
        seeds=[0, 1, 2],
        repeats=2,
    )
    # Of the four strategies, two have a plan from each of the two planners.
    assert len(trials_of(chosen)) == 2 * 2 * (2 + 2 * 2) * 3 * 2


def test_planners_and_ranks_matter_only_where_there_are_stages() -> None:
    trials = {trial.strategy: trial for trial in trials_of(campaign(stages=3, repeats=1))}
    assert (trials["sequential"].planner, trials["sequential"].ranks) == (None, 1)
    assert (trials["horovod"].planner, trials["horovod"].ranks) == (None, 3)
    assert (trials["fbp"].planner, trials["fbp"].ranks) == ("lpm", 3)


def test_intraop_computes_with_the_threads_of_all_devices_unless_told_otherwise() -> None:
    raced = campaign(
        stages=3,
        threads=2,
        strategies=["sequential", "intraop", {"intraop": {"threads": 5, "name": "five"}}],
    )
    threads = [contestant_settings(raced, each).threads for each in raced.contestants]
    assert threads == [2, 6, 5]
    assert {trial.ranks for trial in trials_of(raced)} == {1}


def test_every_trial_has_its_own_name_and_number() -> None:
    chosen = campaign(models=["mlp", "mlp,hidden=8"], seeds=[0, 1], planners=["lpm", "uniform"])
    trials = trials_of(chosen)
    assert len({trial.name for trial in trials}) == len(trials)
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))


def test_a_label_names_the_planner_only_where_several_are_raced() -> None:
    assert {trial.label for trial in trials_of(campaign(strategies=["fbp"]))} == {"fbp"}
    raced = trials_of(campaign(strategies=["fbp"], planners=["lpm", "uniform"]))
    assert {trial.label for trial in raced} == {"fbp (lpm)", "fbp (uniform)"}


@pytest.mark.parametrize("part", ["text:/a b/c.txt", "mlp,hidden=8", "my.package:create"])
def test_file_names_are_plain_and_stay_different(part: str) -> None:
    name = file_name(part, "seed0")
    assert all(letter.isalnum() or letter in "._-" for letter in name)
    assert name != file_name(part.replace(":", "/").replace(",", ";"), "seed0")
