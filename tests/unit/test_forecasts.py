"""What strategies are predicted to do, against numbers worked out by hand."""

from fractions import Fraction

import pytest

from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.engine.strategies.data_parallel import DataParallel
from hpc_lpm.engine.strategies.registry import STRATEGIES, strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.planning.forecast.case import Case, Nodes
from hpc_lpm.planning.forecast.data_parallel import exposed_all_reduce_seconds
from hpc_lpm.planning.forecast.forecast import Certainty
from hpc_lpm.planning.forecast.sharded import pass_seconds
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.measured import packaged_measurements
from hpc_lpm.profile_file import LayerProfile, Link, LinkProfile, Profile


def layer(name, forward, backward, output=8, parameters=64, activations=32):
    return LayerProfile(
        name=name,
        forward_seconds=forward,
        backward_seconds=backward,
        output_bytes=output,
        parameter_bytes=parameters,
        activation_bytes=activations,
    )


TWO_LAYERS = (layer("first", 1.0, 2.0), layer("second", 1.0, 2.0, output=4))
"""Of 1 s forward and 2 s backward each, so that the sums stay whole numbers."""


def case(
    *,
    layers=TWO_LAYERS,
    bandwidth=64.0,
    latency=0.0,
    overlap=True,
    devices=2,
    batch_size=16,
    micro_batches=(4,),
    nodes=None,
    threaded=None,
    device="cpu",
    **options,
):
    link = LinkProfile(
        latency_seconds=latency, bandwidth_bytes_per_second=bandwidth, overlap=overlap
    )
    profiles = tuple(
        Profile(
            model="two",
            micro_batch=size,
            device=device,
            dtype="float32",
            layers=layers,
            link=link,
        )
        for size in micro_batches
    )
    return Case(
        profiles=profiles,
        devices=devices,
        batch_size=batch_size,
        options=PlanOptions(**{"optimizer": "sgd", **options}),
        measured=packaged_measurements(),
        nodes=nodes,
        threaded_seconds=threaded or {},
    )


def forecasts(name, asked):
    settings = checked_settings(
        model="mlp", dataset="digits", strategy=name, micro_batches=1, steps=1
    )
    return strategy_named(name).forecasts(settings, asked)


def test_one_device_takes_every_micro_batch_of_a_step_through_all_layers():
    (alone,) = forecasts("sequential", case())
    # 16 samples are 4 micro-batches of (1 + 2 + 1 + 2) s.
    assert alone.step_seconds == 24
    assert alone.samples_per_second == pytest.approx(16 / 24)
    # Weights and gradients of 128 bytes, and the activations of a micro-batch.
    assert alone.memory_bytes == 2 * 128 + 64
    assert (alone.sent_bytes, alone.devices, alone.micro_batches) == (0, 1, 4)


def test_data_parallelism_hides_the_sums_of_all_but_the_last_layers_behind_the_backward_pass():
    (alone,) = forecasts("horovod", case())
    # Each rank takes 2 of 4 micro-batches, 12 s. A ring of 2 sends 2 x 1/2 x 64 bytes at 64 bytes a
    # second a layer: 1 s for the second layer, hidden behind 2 s of the first's backward pass, and
    # 1 s for the first, with nothing left to hide behind.
    assert alone.step_seconds == 12 + 1
    assert "1000.000 ms of all-reduce" in alone.bound
    assert alone.memory_bytes == 2 * 128 + 64
    # Both ranks send 2 (R - 1) / R x 128 bytes.
    assert alone.sent_bytes == 2 * 128
    assert alone.expected.worth.value == 1


def test_a_bucket_that_holds_the_whole_model_is_summed_behind_the_backward_pass():
    (alone,) = forecasts("ddp", case())
    assert alone.step_seconds == 12 + 2


def test_without_overlap_no_sum_is_hidden():
    for name in ("ddp", "horovod"):
        (alone,) = forecasts(name, case(overlap=False, latency=0.25))
        # 2 s for the bytes, and the latency of 2 messages.
        assert alone.step_seconds == 12 + 2 + 2 * 0.25


def test_sums_that_wait_for_each_other_on_the_link_add_up():
    layers = [layer("a", 0, 1.0), layer("b", 0, 1.0), layer("c", 0, 1.0)]
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=16.0)
    # Each sum takes 4 s: the first begins at 1 s, the others one after the other, to 13 s of which
    # the backward pass ends at 3 s.
    assert exposed_all_reduce_seconds(layers, 2, link, 0, overlap=True) == 10
    # In buckets of two layers: from 2 s on 8 s, then 4 s.
    assert exposed_all_reduce_seconds(layers, 2, link, 128, overlap=True) == 11


def test_stages_without_a_flush_take_the_period_of_the_slowest_and_lag():
    (best, *others) = forecasts("fbp", case())
    # 4 micro-batches of 3 s a stage. Messages of 8 bytes take 1/8 s, for which a lead of 1 would
    # wait: (3 + 3 + 2/8) / 2 s a micro-batch; with a lead of 2 they hide.
    assert best.options["lead"] == 2
    assert best.step_seconds == 12
    assert (best.stages, best.replicas, best.micro_batches) == (2, 1, 4)
    assert best.cuts == (0, 1, 2)
    assert best.lag.first_stage == Fraction(2, 4)
    # 8 bytes forward and 8 back, 4 times.
    assert best.sent_bytes == 4 * 16
    # The first stage has 3 micro-batches in flight.
    assert best.memory_bytes == 2 * 64 + 3 * 32
    assert all(best.merit <= other.merit for other in others)


def test_what_a_device_hands_on_to_itself_is_not_sent():
    layers = tuple(layer(f"layer{n}", 1.0, 2.0) for n in range(4))
    ways = [each for each in forecasts("zb-v", case(layers=layers)) if each.stages == 2]
    # Of three boundaries the middle one lies between the two stages of the last device.
    assert {each.sent_bytes for each in ways} == {2 * 4 * 2 * 8}


def test_a_flush_costs_the_bubble():
    (best, *_) = forecasts("1f1b", case(bandwidth=1e30))
    # (M + K - 1) micro-batches of 3 s.
    assert float(best.step_seconds) == pytest.approx((4 + 1) * 3)
    assert best.lag.largest == 0


def test_threads_take_a_share_each_at_best_or_what_was_measured():
    (bound,) = forecasts("intraop", case())
    assert bound.step_seconds == 12
    assert bound.at_best
    assert bound.certainty is Certainty.AT_BEST
    assert bound.effective_rate is None
    (measured,) = forecasts("intraop", case(threaded={4: 4.5}))
    assert measured.step_seconds == 18
    assert measured.certainty is Certainty.EXPECTED


def test_every_profiled_micro_batch_is_tried():
    found = forecasts("sequential", case(micro_batches=(2, 4, 8)))
    assert sorted(each.micro_batches for each in found) == [2, 4, 8]
    # All have the same times a micro-batch, so that the fewest are best.
    assert found[0].micro_batches == 2


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("ddp", {"memory_limit": 319}, "320 bytes on a device.*whole model.*limit of 319"),
        ("fbp", {"memory_limit": 191}, "192 bytes on a device at 2 stages x 1 .*limit of 191"),
        ("horovod", {"devices": 3}, r"16 samples.*profiled micro-batch \(4\) x 3 ranks"),
        ("sequential", {"batch_size": 6}, r"6 samples of a step are no multiple of .*\(4\)$"),
        ("1f1b", {"devices": 3}, "the 2 layers.*fewer than the stages that 3 devices"),
        ("1f1b", {"batch_size": 6}, "the global batch is not a multiple"),
        ("limit", {}, "a model of its own"),
        ("intraop", {"device": "cuda"}, "the profile is of cuda"),
        (
            "intraop",
            {"nodes": Nodes(Link(latency_seconds=0.0, bandwidth_bytes_per_second=1.0), 1)},
            "one node, which has 1 of the 2 devices",
        ),
    ],
)
def test_what_cannot_train_says_why(name, changes, reason):
    with pytest.raises(InputError, match=reason):
        forecasts(name, case(**changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"devices": 1}, "--devices is 1"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"memory_limit": (5, 5)}, "--memory-limit has one entry per stage"),
    ],
)
def test_a_case_that_is_none_is_refused(changes, reason):
    with pytest.raises(InputError, match=reason):
        case(**changes)


def slow_between_nodes(devices_per_node, devices=4):
    between = Link(latency_seconds=0.0, bandwidth_bytes_per_second=1.0)
    return case(devices=devices, nodes=Nodes(between, devices_per_node))


def test_boundaries_and_averages_that_cross_nodes_have_the_link_between_them():
    asked = slow_between_nodes(2)
    (profile,) = asked.profiles
    # 4 stages of one replica: the boundary behind the second stage alone crosses.
    averaged, links = asked.wired(profile, 4)
    assert [link.bandwidth_bytes_per_second for link in links] == [64, 1, 64]
    assert averaged.link.bandwidth_bytes_per_second == 64
    # 2 stages of two neighbouring replicas: averages stay inside a node, messages do not.
    averaged, links = asked.wired(profile, 2)
    assert [link.bandwidth_bytes_per_second for link in links] == [1]
    assert averaged.link.bandwidth_bytes_per_second == 64
    # One stage of four replicas: averages cross.
    averaged, links = asked.wired(profile, 1)
    assert links == ()
    assert averaged.link.bandwidth_bytes_per_second == 1
    # As many devices in a node as there are: nothing crosses.
    averaged, links = slow_between_nodes(4).wired(profile, 2)
    assert [link.bandwidth_bytes_per_second for link in links] == [64]


def test_the_link_between_nodes_slows_data_parallelism_down():
    within = case(nodes=Nodes(Link(latency_seconds=0.0, bandwidth_bytes_per_second=16.0), 2))
    across = case(nodes=Nodes(Link(latency_seconds=0.0, bandwidth_bytes_per_second=16.0), 1))
    assert forecasts("horovod", within)[0].step_seconds == 13
    # Sums of 4 s: from 2 s before the end of the backward pass on, one after the other.
    assert forecasts("horovod", across)[0].step_seconds == 12 + 6


@pytest.mark.parametrize("name", ["sequential", "horovod", "ddp", "fbp", "1f1b", "gpipe"])
def test_a_way_has_on_other_links_the_step_that_is_predicted_there(name):
    # With one place to cut, the ways are the same on all links but for the leads that are tried.
    here, there = case(bandwidth=64.0), case(bandwidth=4.0)
    fresh = {
        (each.micro_batches, tuple(each.options.items())): each.step_seconds
        for each in forecasts(name, there)
    }
    found = forecasts(name, here)
    for each in found:
        assert each.on(here).step_seconds == each.step_seconds
        moved = each.on(there)
        assert moved.step_seconds == fresh[each.micro_batches, tuple(each.options.items())]
        assert moved.cuts == each.cuts


def test_chunks_are_chosen_where_the_strategy_takes_them():
    asked = case(layers=[layer(f"layer {number}", 1.0, 2.0) for number in range(8)], bandwidth=1e12)
    found = forecasts("interleaved-1f1b", asked)
    steps = {each.options["chunks"]: each.step_seconds for each in found}
    # Each device computes 4 layers of 4 micro-batches, and is idle for both passes of one chunk: 4
    # layers in v parts (Narayanan et al. 2021, section 2.2). Three parts cannot be equal.
    assert steps[2] == pytest.approx(4 * 12 + 12 / 2)
    assert steps[4] == pytest.approx(4 * 12 + 12 / 4)
    assert found[0].options["chunks"] == 4
    assert set(steps) == {2, 3, 4}
    # PyTorch's engine is given two chunks, whatever is best.
    (elsewhere,) = forecasts("torch-interleaved", asked)
    assert elsewhere.options == {}
    assert elsewhere.step_seconds >= steps[2]


class Own(Strategy):
    """A strategy that says nothing of its times."""

    name = "own"
    description = "one"

    def start(self, context):
        raise NotImplementedError


class OwnPlan(Own):
    """One that trains stages in an order that it does not tell."""

    needs_plan = True


class OwnOrder(OwnPlan):
    """One that trains stages in the order of a schedule."""

    def plan_options(self, settings):
        return {"schedule": "1f1b", "overlap": False}


def test_a_strategy_of_ones_own_is_predicted_by_the_schedule_that_it_names():
    settings = checked_settings(model="mlp", dataset="digits", micro_batches=1, steps=1)
    (best, *_) = OwnOrder().forecasts(settings, case(bandwidth=8.0))
    # A micro-batch takes 2 more seconds at both stages, which wait for their messages.
    assert best.way == "1f1b"
    assert best.step_seconds > 15
    for own in (Own(), OwnPlan()):
        with pytest.raises(InputError, match=r"not predicted.*`forecasts`"):
            own.forecasts(settings, case())


def test_every_registered_strategy_is_predicted_or_says_why_not():
    for name, _ in STRATEGIES.items():
        try:
            found = forecasts(name, case(batch_size=32))
        except InputError as error:
            assert str(error)
        else:
            assert found
            assert found == sorted(found, key=lambda each: each.merit)


class Sharded(DataParallel):
    """Data parallelism whose ranks keep shares of the weights."""

    name = "sharded"
    description = "one"
    shards = True

    def start(self, context):
        raise NotImplementedError


def sharded(asked):
    settings = checked_settings(model="mlp", dataset="digits", micro_batches=1, steps=1)
    return Sharded().forecasts(settings, asked)


def test_sharding_gathers_the_next_layer_while_one_is_computed():
    seconds = [Fraction(1), Fraction(1), Fraction(3)]
    # Gathers of 2 s: the first from 0 on; the second from 2, when the first layer begins, to 4; the
    # third from 4 to 6. The last layer ends at 9.
    assert pass_seconds(seconds, [Fraction(2)] * 3, overlap=True) == 9
    assert pass_seconds(seconds, [Fraction(2)] * 3, overlap=False) == 11


def test_sharding_scatters_the_sums_once_and_holds_a_share():
    (alone,) = sharded(case())
    # A layer's 64 bytes are gathered in 1/2 s. Two micro-batches a rank: each forward 1/2 + 2 s and
    # each backward 1/2 + 4 s, and behind the last one the scatter of the first layer, 1/2 s.
    assert alone.step_seconds == 2 * 2.5 + 2 * 4.5 + 0.5
    # A half of the weights, the gradients, the activations and two gathered layers.
    assert alone.memory_bytes == 64 + 128 + 64 + 128
    # Two gathers for each of two micro-batches and one scatter, 128 bytes from each to the other.
    assert alone.sent_bytes == 5 * 128
    (apart,) = sharded(case(overlap=False))
    assert apart.step_seconds == 12 + 5 * 1


def test_what_needs_too_much_in_shares_says_so():
    with pytest.raises(InputError, match="384 bytes on a device for its share"):
        sharded(case(memory_limit=383))
    # Adam's two copies are shared too: 128 x 3 / 2 + 128 + 64 + 128.
    (alone,) = sharded(case(memory_limit=512, optimizer="adam"))
    assert alone.memory_bytes == 512
