"""Predicted costs against numbers worked out by hand."""

import pytest

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import explain
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import make_plan, price_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def profile_of(layers, overlap=True, latency=0.5, bandwidth=10.0):
    """Build a profile from (forward, backward, output, parameters, activations) a layer."""
    names = ("forward_seconds", "backward_seconds", "output_bytes")
    names += ("parameter_bytes", "activation_bytes")
    return Profile(
        model="by hand",
        micro_batch=2,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(name=f"layer{number}", **dict(zip(names, layer, strict=True)))
            for number, layer in enumerate(layers)
        ),
        link=LinkProfile(
            latency_seconds=latency, bandwidth_bytes_per_second=bandwidth, overlap=overlap
        ),
    )


THREE = [(1.0, 2.0, 10, 100, 7), (2.0, 4.0, 20, 200, 11), (4.0, 8.0, 40, 400, 13)]


def priced(stages=3, cuts=(0, 1, 2, 3), overlap=True, **options):
    model = CostModel(profile_of(THREE, overlap), stages, PlanOptions(**options))
    return price_plan(model, cuts, "by hand", "0" * 64)


def test_replay_adds_d_over_m_of_the_forwards():
    # d = 2, 1, 0 and M = 4: 3 + 1 * 2/4, 6 + 2 * 1/4, 12.
    assert [s.compute_seconds for s in priced(weights="replay").stages] == [3.5, 6.5, 12.0]
    lead = priced(weights="replay", lead=2)
    assert [s.compute_seconds for s in lead.stages] == [4.0, 7.0, 12.0]


@pytest.mark.parametrize("weights", ["live", "stash"])
def test_other_policies_add_no_work(weights):
    assert [s.compute_seconds for s in priced(weights=weights).stages] == [3.0, 6.0, 12.0]


def test_speeds_divide_the_compute_of_their_stage():
    plan = priced(weights="replay", speeds=(1.0, 0.5, 4.0))
    assert [s.compute_seconds for s in plan.stages] == [3.5, 13.0, 3.0]
    assert plan.period_seconds == 13.0


def test_boundary_bytes_are_those_of_the_cuts_alone():
    plan = priced()
    assert [s.send_bytes for s in plan.stages] == [10, 20, 0]
    assert plan.boundary_bytes == 30
    assert priced(stages=1, cuts=(0, 3)).boundary_bytes == 0


def test_overlapped_period_is_the_longest_of_computes_and_transfers():
    assert priced(weights="live").period_seconds == 12.0
    # 0.5 + 20 / 10 = 2.5 over the second cut is more than any stage at these speeds.
    assert priced(weights="live", speeds=(3.0, 3.0, 6.0)).period_seconds == 2.5


def test_period_without_overlap_pays_every_transfer_twice_at_both_ends():
    # Transfers 1.5 and 2.5: 3 + 3, 6 + 3 + 5, 12 + 5.
    assert priced(weights="live", overlap=False).period_seconds == 17.0
    fast_last = priced(weights="live", overlap=False, speeds=(1.0, 1.0, 12.0))
    assert fast_last.period_seconds == 14.0


def test_option_overrules_the_overlap_of_the_profile():
    model = CostModel(profile_of(THREE), 3, PlanOptions(weights="live", overlap=False))
    assert model.period((0, 1, 2, 3)) == 17


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        # (2 + s) parameters + (d + 1) activations, d = 2, 1, 0.
        ("sgd", [200 + 21, 400 + 22, 800 + 13]),
        ("momentum", [300 + 21, 600 + 22, 1200 + 13]),
        ("adam", [400 + 21, 800 + 22, 1600 + 13]),
        ("adamw", [400 + 21, 800 + 22, 1600 + 13]),
        ("other", [400 + 21, 800 + 22, 1600 + 13]),
    ],
)
def test_memory_counts_weights_gradients_optimizer_and_activations(optimizer, expected):
    assert [s.memory_bytes for s in priced(optimizer=optimizer).stages] == expected


def test_stashing_holds_a_copy_of_the_weights_for_every_version_under_way():
    # d = 2, 1, 0 and M = 1: 2, 1 and 0 versions more.
    plan = priced(optimizer="sgd", weights="stash", micro_batches=1)
    assert [s.memory_bytes for s in plan.stages] == [400 + 21, 600 + 22, 800 + 13]
    plan = priced(optimizer="sgd", weights="stash", micro_batches=2)
    assert [s.memory_bytes for s in plan.stages] == [300 + 21, 600 + 22, 800 + 13]


def test_sums_do_not_depend_on_the_order_of_adding():
    # In doubles (1e17 + 1) - 1e17 is 0; a planner that loses the 1 here would call this a tie.
    layers = [(1e17, 0.0, 0, 0, 0), (1.0, 0.0, 0, 0, 0), (1e17, 0.0, 0, 0, 0)]
    plan = make_plan(
        profile_of(layers), "0" * 64, 2, "lpm", PlanOptions(tolerance=0, speeds=(1.0, 1.0))
    )
    # The forward of stage 0 is replayed for a quarter of the micro-batches.
    assert plan.cuts == (0, 1, 3)
    live = PlanOptions(tolerance=0, weights="live", speeds=(1.0, 2.0))
    assert CostModel(profile_of(layers), 2, live).compute_seconds(0, 0, 2) == 10**17 + 1


def test_tolerance_is_not_rounded_away():
    # 1 + 2^-60 is 1 in doubles. One second more than 2^60 is within that tolerance and saves bytes.
    heavy = 2.0**60
    layers = [(heavy, 0.0, 9, 0, 0), (1.0, 0.0, 5, 0, 0), (heavy, 0.0, 0, 0, 0)]
    profile = profile_of(layers, bandwidth=1e9)

    def cuts(tolerance):
        options = PlanOptions(tolerance=tolerance, weights="live", speeds=(1.0, 2.0))
        return make_plan(profile, "0" * 64, 2, "lpm", options).cuts

    assert cuts(0.0) == (0, 1, 3)
    assert cuts(2.0**-60) == (0, 2, 3)


def test_explanation_names_the_bottleneck():
    def bottleneck(**options):
        overlap = options.pop("overlap", True)
        model = CostModel(profile_of(THREE, overlap), 3, PlanOptions(weights="live", **options))
        return explain(model, (0, 1, 2, 3)).bottleneck

    assert bottleneck() == "the compute of stage 2"
    assert bottleneck(speeds=(3.0, 3.0, 6.0)) == "the transfer between stages 1 and 2"
    assert bottleneck(overlap=False) == "compute and transfers of stage 2"


def test_speedup_is_bounded_by_the_coarsest_layer_or_by_the_devices():
    coarse = explain(CostModel(profile_of(THREE), 3, PlanOptions(weights="live")), (0, 1, 2, 3))
    assert (coarse.speedup, coarse.speedup_bound) == (21 / 12, 21 / 12)
    assert coarse.coarsest_layer == "layer2"
    assert coarse.coarsest_layer_bounds
    replicated = CostModel(profile_of(THREE), 3, PlanOptions(weights="live", replicas=4))
    assert explain(replicated, (0, 1, 2, 3)).speedup == 4 * 21 / 12
    fine = explain(CostModel(profile_of([THREE[0]] * 4), 2, PlanOptions()), (0, 2, 4))
    assert fine.speedup_bound == 2
    assert not fine.coarsest_layer_bounds


@pytest.mark.parametrize(
    ("stages", "options", "sentence"),
    [
        (4, {}, "by hand has 3 layers .* ask for at most 3 stages"),
        (0, {}, "accepted is 1 to 3"),
        (2, {"speeds": (1.0,)}, "speeds has 1 entries for 2 stages"),
        (2, {"memory_limit": (1, 2, 3)}, "memory_limit has 3 entries for 2 stages"),
    ],
)
def test_options_that_do_not_fit_the_model_are_bad_input(stages, options, sentence):
    with pytest.raises(InputError, match=sentence):
        make_plan(profile_of(THREE), "0" * 64, stages, "uniform", PlanOptions(**options))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"weights": "new"}, "weights: accepted is 'replay', 'live', 'stash' or 'double-buffer'"),
        ({"tolerance": -1}, "tolerance"),
        ({"speeds": (0.0,)}, "speeds"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_unaccepted_option_is_bad_input(values, sentence):
    with pytest.raises(InputError, match=sentence):
        PlanOptions.checked(**values)
