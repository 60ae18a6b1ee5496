"""Which strategy is advised, why, and the campaign that races the best three."""

import sys
import types
from dataclasses import replace
from fractions import Fraction

import pytest
import yaml
from test_forecasts import case, layer

from hpc_lpm.advice.asked_profiles import usual_micro_batches
from hpc_lpm.advice.campaign_file import campaign_document, write_campaign
from hpc_lpm.advice.ranking import names_with, rank
from hpc_lpm.advice.reasons import what_changes_it, why_first
from hpc_lpm.advice.subject import Subject
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.validation import read_checked_campaign
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.forecast.case import Nodes
from hpc_lpm.planning.forecast.forecast import Certainty
from hpc_lpm.profile_file import Link

MODEL = "mlp,layers=4,width=8"
SHARED = {"model": MODEL, "dataset": "digits", "optimizer": {"name": "momentum", "lr": 0.05}}


def subject(**shared):
    settings = {**SHARED, "batch_size": 16, **shared}
    return Subject(create_model(settings["model"], dataset_shape("digits")), settings)


def even(parameters=64, output=8):
    """Two layers of 3 s, with messages and gradients of so many bytes."""
    return (
        layer("one", 1.0, 2.0, output=output, parameters=parameters),
        layer("two", 1.0, 2.0, output=output, parameters=parameters),
    )


def ranking(names, asked, **shared):
    return rank(subject(**shared), asked, names)


def test_data_parallelism_is_first_where_gradients_are_few_and_messages_many():
    asked = case(layers=even(parameters=4, output=640), bandwidth=64.0)
    found = ranking(["1f1b", "fbp", "horovod"], asked)
    # A message takes 10 s, an average of the gradients 1/16 s.
    assert found.best.name == "horovod"
    assert float(found.best.forecast.step_seconds) == 12 + 4 / 64
    assert "all-reduce" in why_first(found)


def test_stages_without_a_flush_are_first_where_gradients_are_many_and_messages_few():
    asked = case(layers=even(parameters=6400, output=1), bandwidth=64.0, optimizer="momentum")
    found = ranking(["horovod", "1f1b", "fbp"], asked)
    # A step of stages takes 12 s, of which a flush makes 15 s and two messages; an average of a
    # layer's gradients takes 100 s.
    assert [each.name for each in found.ranked] == ["fbp", "1f1b", "horovod"]
    sentence = why_first(found)
    assert sentence.startswith("fbp is first: a step takes 12000.000 ms, bounded by the compute")
    assert "is worth 1.00 of a synchronous one" in sentence
    assert "the next other way is 1f1b, 25.3% later, bounded by the flush" in sentence


def test_what_does_not_fit_is_left_out_with_what_it_needs_and_what_it_would_win():
    asked = case(layers=even(parameters=64, output=640), memory_limit=250)
    found = ranking(["ddp", "1f1b"], asked)
    assert [each.name for each in found.ranked] == ["1f1b"]
    (left,) = found.left_out
    assert left.name == "ddp"
    assert "needs 320 bytes" in left.reason
    assert any(
        "Without the memory limit ddp would be first, with 320 bytes" in sentence
        for sentence in what_changes_it(found, subject())
    )


def test_a_step_that_nobody_has_measured_the_worth_of_comes_after_all_others():
    asked = case(layers=even(parameters=6400, output=1), optimizer="other")
    found = ranking(["fbp", "intraop", "naive", "1f1b"], asked, optimizer={"name": "RMSprop"})
    assert [each.name for each in found.ranked] == ["1f1b", "naive", "fbp", "intraop"]
    certainties = [each.forecast.certainty for each in found.ranked]
    assert certainties == [*[Certainty.EXPECTED] * 2, Certainty.WORTH_UNKNOWN, Certainty.AT_BEST]
    (sentence,) = [each for each in what_changes_it(found, subject()) if "worth" in each]
    # 12 s instead of 15 s.
    assert "fbp would be first if a step of it were worth more than 0.80" in sentence
    assert "nothing is measured for other" in sentence


def test_the_link_at_which_another_way_comes_first_is_named():
    # Gradients take 2 s at 64 bytes a second and are not hidden; messages take next to nothing.
    asked = case(layers=even(parameters=64, output=1), overlap=False, optimizer="momentum")
    found = ranking(["sequential", "fbp", "horovod"], asked)
    assert found.best.name == "fbp"
    sentences = what_changes_it(found, subject())
    # A step of stages takes 4 x (3 + 2/64) s, less than 12 + 2 s of the average, and on a link f
    # times slower 12 + f/8 s; sequential training takes 24 s: less at f = 128, more at f = 64.
    assert any(
        each.startswith("sequential would be first on links 128 times slower") for each in sentences
    ), sentences
    # On a faster link both come near 12 s, the stages sooner.
    assert not any("faster" in each for each in sentences)


def test_reasons_are_told_where_no_step_takes_any_time():
    asked = case(layers=even(parameters=6400, output=1), bandwidth=64.0, optimizer="momentum")
    found = ranking(["fbp", "1f1b"], asked)
    assert [each.name for each in found.ranked] == ["fbp", "1f1b"]
    ranked = tuple(
        replace(each, forecast=replace(each.forecast, step_seconds=Fraction(0)))
        for each in found.ranked
    )
    told = what_changes_it(replace(found, ranked=ranked), subject())
    assert not any("worth less" in each for each in told)
    assert any("worth less" in each for each in what_changes_it(found, subject()))


def test_where_nothing_changes_the_order_the_reasons_say_so():
    found = ranking(["sequential"], case())
    assert why_first(found).endswith("no other way can train this.")
    (sentence,) = what_changes_it(found, subject())
    assert sentence.startswith("No link up to 256 times slower or faster changes")


@pytest.mark.parametrize(
    ("batch_size", "remedy"),
    [
        (12, "profile a micro-batch of 4 samples, or of a number that divides them."),
        (16, "give a --batch-size that is a multiple of 3."),
    ],
)
def test_data_parallelism_that_no_profile_tells_of_is_named_beside_the_links(batch_size, remedy):
    layers = [layer(f"l{n}", 1.0, 2.0, output=1) for n in range(4)]
    asked = case(layers=layers, devices=3, batch_size=batch_size, micro_batches=(2, batch_size))
    found = ranking(["zb-h1", "ddp", "fsdp", "fbp"], asked, batch_size=batch_size)
    told = what_changes_it(found, subject())
    if batch_size == 12:
        # With micro-batches of 2 samples each of 3 devices has two.
        assert not any("Data parallelism" in each for each in told)
        asked = case(layers=layers, devices=3, batch_size=batch_size, micro_batches=(12,))
        found = ranking(["zb-h1", "ddp", "fsdp", "fbp"], asked, batch_size=batch_size)
        told = what_changes_it(found, subject())
    (sentence,) = [each for each in told if "Data parallelism" in each]
    assert sentence.startswith("Data parallelism (ddp, fsdp) is not among these ways: the ")
    assert sentence.endswith(remedy)


def test_refusals_of_a_strategy_leave_out_its_ways_one_by_one():
    asked = case(layers=[layer(f"l{n}", 1.0, 2.0) for n in range(4)], devices=4)
    found = ranking(["1f1b", "torch-1f1b"], asked)
    assert {each.name: each.forecast.replicas for each in found.ranked}["torch-1f1b"] == 1
    # 8 samples are 2 micro-batches for 4 stages, which this engine does not take.
    found = rank(
        subject(batch_size=8),
        case(layers=asked.profiles[0].layers, devices=4, batch_size=8),
        ["1f1b", "torch-1f1b"],
    )
    (left,) = found.left_out
    assert left.name == "torch-1f1b"
    assert "--micro-batches is 2 with a plan of 4 stages" in left.reason


class Faulty(Strategy):
    """A strategy of the user's own whose prediction fails."""

    description = "one"

    def start(self, context):
        raise NotImplementedError

    def forecasts(self, settings, case):
        raise ZeroDivisionError("no devices")


def test_a_strategy_of_ones_own_that_fails_is_left_out_with_what_it_raised(monkeypatch):
    module = types.ModuleType("faulty_strategies")
    module.Faulty = Faulty
    monkeypatch.setitem(sys.modules, "faulty_strategies", module)
    found = ranking(["sequential", "faulty_strategies:Faulty"], case())
    (left,) = found.left_out
    assert left.name == "faulty_strategies:Faulty"
    assert left.reason.startswith("not predicted: its `forecasts` raises ZeroDivisionError: no dev")


def test_where_nothing_can_train_the_commonest_reasons_are_told():
    with pytest.raises(InputError, match=r"no strategy can train .* on 2 devices") as refused:
        ranking(["ddp", "horovod", "fbp"], case(memory_limit=5))
    assert "ddp, horovod: it needs 320 bytes" in str(refused.value)


def test_all_registered_strategies_are_weighed_with_those_of_ones_own():
    names = names_with(["mine:Own"])
    assert names[-1] == "mine:Own"
    assert {"sequential", "fbp", "ddp"} <= set(names)


@pytest.mark.parametrize(
    ("batch_size", "devices", "sizes"),
    [
        (64, 2, [32, 16, 8]),
        (64, 8, [16, 8, 4, 2]),
        (60, 8, [10, 6, 5, 4]),
        (4, 8, [1]),
        (7, 2, [1]),
        (1, 2, [1]),
    ],
)
def test_a_model_is_profiled_at_micro_batches_that_the_devices_share(batch_size, devices, sizes):
    assert usual_micro_batches(batch_size, devices) == sizes


def layered_case(**changes):
    layers = [layer(f"l{n}", 1.0, 2.0, output=1, parameters=640) for n in range(4)]
    return case(layers=layers, devices=4, optimizer="momentum", **changes)


def test_the_written_campaign_is_valid_and_races_the_first_three(tmp_path):
    asked = layered_case()
    about = subject()
    found = rank(about, asked, names_with([]))
    reasons = [why_first(found), "Another sentence."]
    path = tmp_path / "race.yaml"
    write_campaign(path, found, about, reasons)
    text = path.read_text()
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    assert f"{reasons[0]} Another sentence." in " ".join(comments)
    assert max(map(len, comments)) < 100
    campaign = read_checked_campaign(path)
    assert campaign.name == "race"
    first = [each.name for each in found.ranked[:3]]
    assert [each.strategy for each in campaign.contestants] == first
    assert (campaign.stages, campaign.batch_size, campaign.optimizer.lr) == (4, 16, 0.05)
    steps = Steps(campaign, CampaignFolder(tmp_path / "results" / "race"))
    for each in found.ranked[:3]:
        trial = next(t for t in steps.trials.values() if t.strategy == each.name)
        settings = steps.settings(trial.name)
        assert settings.micro_batches == each.forecast.micro_batches
        assert trial.micro_batch == 4
        assert trial.replicas == (each.forecast.replicas if each.forecast.cuts else 1)
        for name, value in each.forecast.options.items():
            assert getattr(settings.own, name, value) == value


def test_the_campaign_keeps_the_memory_limit_by_its_cuts_and_spreads_over_nodes():
    nodes = Nodes(Link(latency_seconds=0.0, bandwidth_bytes_per_second=32.0), 2)
    asked = layered_case(memory_limit=4600, nodes=nodes)
    found = ranking(["ddp", "1f1b", "fbp"], asked)
    document = campaign_document("race", found, subject())
    assert document["resources"] == {"nodes": 2}
    raced = {name: settings for each in document["strategies"] for name, settings in each.items()}
    assert list(raced) == [each.name for each in found.ranked]
    for each in found.ranked:
        assert raced[each.name]["cuts"] == list(each.forecast.cuts[1:-1])
        assert raced[each.name].get("replicas", 1) == each.forecast.replicas
    assert yaml.safe_load(yaml.safe_dump(document)) == document


def test_a_file_whose_name_cannot_be_a_campaigns_is_refused(tmp_path):
    found = ranking(["sequential"], case())
    with pytest.raises(InputError, match="digits, dots, hyphens"):
        write_campaign(tmp_path / "a b.yaml", found, subject(), ["x"])
