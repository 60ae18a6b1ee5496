"""What a plan's explanation tells, and whether its advice is true."""

from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import explain
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def profile_of(seconds, output_bytes=1, bandwidth=1e9, overlap=True):
    """Build a profile from the forward seconds of its layers."""
    return Profile(
        model="timed",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=forward,
                backward_seconds=0.0,
                output_bytes=output_bytes,
                parameter_bytes=1,
                activation_bytes=1,
            )
            for number, forward in enumerate(seconds)
        ),
        link=LinkProfile(
            latency_seconds=0.0, bandwidth_bytes_per_second=bandwidth, overlap=overlap
        ),
    )


def explained(profile, cuts, **options):
    settled = PlanOptions(**{"weights": "live", **options})
    return explain(CostModel(profile, len(cuts) - 1, settled), cuts)


def least_period(profile, stages, options):
    model = CostModel(profile, stages, options)
    inner = combinations(range(1, model.layers), stages - 1)
    return min(model.period((0, *cuts, model.layers)) for cuts in inner)


def test_a_layer_that_bounds_alone_is_named_with_what_to_do():
    found = explained(profile_of([1, 1, 1, 5, 1, 1]), (0, 2, 3, 4, 6))
    assert found.bottleneck == "the compute of stage 2"
    assert found.dominant_layer == "layer3"
    # [0, 3), [3, 4), [4, 6): the 5 seconds of layer 3 bound every plan.
    assert found.enough_stages == 3
    assert found.hints == (
        "stage 2 holds layer3 alone: split that layer or give it a faster device to go further; "
        "3 stages would do as well.",
    )


def test_a_single_stage_that_would_do_is_called_one():
    found = explained(profile_of([0, 5]), (0, 1, 2))
    assert found.hints[0].endswith("; 1 stage would do as well.")


def test_a_lead_that_hides_messages_is_advised_where_the_plans_does_not():
    def found(**options):
        profile = profile_of([4, 4, 4], output_bytes=2, bandwidth=1.0, overlap=True)
        return explained(profile, (0, 1, 2, 3), **options)

    # Around two stages (8 + 2 x 2) / 2 seconds, around three (12 + 4 x 2) / 3, in place of 4.
    assert found().stretch == pytest.approx(20 / 3 / 4 - 1)
    assert found().sufficient_lead == 2
    assert found().hints == (
        "messages on their way stretch the period by 67% with lead 1: --lead 2 hides them and "
        "holds more activations.",
    )
    assert (found(lead=2).stretch, found(lead=2).sufficient_lead) == (0.0, None)
    assert found(tolerance=0.7).hints == ()
    assert found(overlap=False).stretch == 0


def test_no_lead_is_advised_that_uses_more_versions_of_the_weights_than_are_kept():
    def found(**options):
        profile = profile_of([4, 4, 4], output_bytes=2, bandwidth=1.0, overlap=True)
        return explained(profile, (0, 1, 2, 3), weights="double-buffer", **options)

    # The first stage is two micro-batches ahead with lead 1, and four with lead 2.
    assert found(micro_batches=4).sufficient_lead == 2
    assert found(micro_batches=2).sufficient_lead is None
    assert found(micro_batches=2).hints == (
        "messages on their way stretch the period by 67% with lead 1: a larger lead would hide "
        "them, but uses more versions of the weights than --weights double-buffer keeps; use more "
        "micro-batches, or --weights stash.",
    )


def test_nothing_is_advised_where_the_devices_are_fully_used():
    found = explained(profile_of([2, 2, 2]), (0, 1, 2, 3))
    assert (found.dominant_layer, found.enough_stages, found.hints) == (None, None, ())


def test_a_layer_dominates_that_leaves_others_no_more_than_the_tolerance():
    seconds, cuts = [7, 0.25, 8, 1], (0, 1, 3, 4)
    found = explained(profile_of(seconds), cuts, tolerance=1 / 32)
    assert found.dominant_layer == "layer2"
    assert found.hints[0].startswith(
        "layer2 in stage 1 alone takes 97% of the period: split that layer"
    )
    assert explained(profile_of(seconds), cuts, tolerance=1 / 33).dominant_layer is None


def test_no_layer_is_blamed_for_what_a_large_tolerance_gave_away():
    assert explained(profile_of([7, 2, 8, 1]), (0, 1, 3, 4), tolerance=1.0).dominant_layer is None


def test_no_lead_is_advised_against_a_stretch_of_less_than_a_percent():
    profile = profile_of([4, 4], output_bytes=1, bandwidth=25.0)
    assert explained(profile, (0, 1, 2), tolerance=0).hints == ()
    assert explained(profile, (0, 1, 2), tolerance=0).stretch == pytest.approx(0.01)


def test_a_layer_dominates_though_other_stages_were_filled_up_within_the_tolerance():
    found = explained(profile_of([4, 4.25, 8, 1]), (0, 2, 3, 4), tolerance=1 / 32)
    assert found.bottleneck == "the compute of stage 0"
    assert found.dominant_layer == "layer2"
    assert found.hints[0].startswith("stage 1 holds layer2 alone")


def test_a_link_bounds_a_stage_that_sends_for_longer_than_it_computes():
    def found(bandwidth):
        profile = profile_of([2, 5, 2], output_bytes=6, bandwidth=bandwidth, overlap=False)
        return explained(profile, (0, 1, 2, 3))

    # Stage 1 computes 5 s and sends and receives both ways: 4 x 6 bytes.
    assert found(4.0).bottleneck == found(5.0).bottleneck == "compute and transfers of stage 1"
    assert found(4.0).dominant_layer is None
    assert found(4.0).hints[0].startswith("the link is the bottleneck")
    assert found(5.0).dominant_layer == "layer1"


def test_nothing_is_advised_where_the_bottleneck_could_be_cut():
    found = explained(profile_of([3, 3, 1]), (0, 2, 3))
    assert (found.dominant_layer, found.hints) == (None, ())


def test_a_link_that_bounds_is_named_with_what_to_do():
    found = explained(profile_of([1, 1, 1], output_bytes=9, bandwidth=3.0), (0, 1, 2, 3))
    assert found.bottleneck == "the transfer between stages 0 and 1"
    assert found.dominant_layer is None
    assert found.enough_stages == 1
    assert found.hints[0].startswith("the link is the bottleneck")


def test_stages_that_need_an_entry_each_are_not_counted_down():
    found = explained(profile_of([1, 1, 5]), (0, 1, 2, 3), speeds=(1.0, 1.0, 1.0))
    assert found.dominant_layer == "layer2"
    assert found.enough_stages is None
    assert found.hints == (
        "stage 2 holds layer2 alone: split that layer or give it a faster device to go further.",
    )


def test_memory_limits_are_kept_when_stages_are_counted_down():
    # SGD, live: two bytes of parameters a layer and d + 1 of activations.
    loose = explained(profile_of([1, 1, 5]), (0, 1, 2, 3), optimizer="sgd", memory_limit=8)
    assert loose.enough_stages == 2
    tight = explained(profile_of([1, 1, 5]), (0, 1, 2, 3), optimizer="sgd", memory_limit=7)
    assert tight.enough_stages is None


def test_load_is_the_share_of_the_period_in_which_a_stage_is_busy():
    overlapped = explained(profile_of([1, 4], output_bytes=3, bandwidth=3.0), (0, 1, 2))
    assert [stage.load for stage in overlapped.stages] == [0.25, 1.0]
    assert [stage.transfer_seconds for stage in overlapped.stages] == [1.0, 0.0]
    alternating = explained(
        profile_of([1, 4], output_bytes=3, bandwidth=3.0, overlap=False), (0, 1, 2)
    )
    assert [stage.load for stage in alternating.stages] == [3 / 6, 1.0]


def test_stages_are_told_by_their_first_and_last_layers_and_limits():
    found = explained(profile_of([1, 1, 1]), (0, 2, 3), memory_limit=(70, 80))
    assert [(stage.first_layer, stage.last_layer) for stage in found.stages] == [
        ("layer0", "layer1"),
        ("layer2", "layer2"),
    ]
    assert [stage.memory_limit_bytes for stage in found.stages] == [70, 80]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 7.0]), min_size=2, max_size=8),
    st.data(),
)
def test_no_fewer_stages_than_those_advised_have_the_period(seconds, data):
    overlap = data.draw(st.booleans())
    profile = profile_of(
        seconds, data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1.0, 9.0])), overlap
    )
    stages = data.draw(st.integers(2, len(seconds)))
    options = PlanOptions(
        tolerance=0,
        weights=data.draw(st.sampled_from(["replay", "live"])),
        lead=data.draw(st.integers(1, 2)),
        micro_batches=data.draw(st.integers(1, 4)),
    )
    model = CostModel(profile, stages, options)
    cuts = optimal_cuts(model)
    found = explain(model, cuts)
    assume(any("split that" in hint or "the link" in hint for hint in found.hints))
    period = model.period(cuts)
    fewer = [k for k in range(1, stages) if least_period(profile, k, options) <= period]
    assert found.enough_stages == min(fewer, default=None)


def test_advice_for_thousands_of_layers_takes_seconds():
    seconds = [1e-3] * 1000
    seconds[500] = 0.02
    model = CostModel(profile_of(seconds), 64, PlanOptions(weights="live"))
    before, behind = range(32), range(1, 32)
    cuts = (*(500 * k // 32 for k in before), 500, 501, *(501 + 499 * k // 31 for k in behind))
    found = explain(model, cuts)
    assert found.dominant_layer == "layer500"
    # 500 layers of 1 ms in front and 499 behind, 20 of them a stage.
    assert found.enough_stages == 25 + 1 + 25


def test_nothing_takes_time_between_two_stages_of_one_device():
    # Stages 0 and 3 are on the first device, 1 and 2 on the second. Each device computes for 2 s,
    # as long as the link carries messages in each direction; where it moves them itself it takes
    # 2 s more for those that it sends, and as long for those that it receives.
    for overlap in (True, False):
        profile = profile_of([1, 1, 1, 1], output_bytes=3, bandwidth=3.0, overlap=overlap)
        stages = explained(profile, (0, 1, 2, 3, 4), schedule="zb-v").stages
        assert [stage.transfer_seconds for stage in stages] == [1.0, 0.0, 1.0, 0.0]
        assert [stage.load for stage in stages] == [0.5] * 4
