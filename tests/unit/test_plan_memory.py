"""What optimizer muon and predicted weights hold, by hand, and plans within limits of it."""

from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hpc_lpm
from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.memory import memory_assumptions, whole_model_memory_bytes
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.planning.repricing import plan_for
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def profile_of(layers):
    """Build a profile from (parameters, matrices among them, activations, seconds) a layer."""
    return Profile(
        model="by hand",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=seconds,
                backward_seconds=seconds,
                output_bytes=3,
                parameter_bytes=parameters,
                matrix_parameter_bytes=matrices,
                activation_bytes=activations,
            )
            for number, (parameters, matrices, activations, seconds) in enumerate(layers)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )


TWO = profile_of([(100, 60, 7, 1.0), (50, 50, 5, 1.0)])


def held(profile, cuts=(0, 1, 2), **options):
    model = CostModel(profile, len(cuts) - 1, PlanOptions(weights="live", **options))
    plan = price_plan(model, cuts, "by hand", "0" * 64)
    return [stage.memory_bytes for stage in plan.stages]


def test_muon_keeps_one_copy_of_matrices_and_two_of_the_rest():
    # Weights and gradients, the state of either kind, two micro-batches in flight and one.
    assert held(TWO, optimizer="muon") == [200 + 60 + 2 * 40 + 14, 100 + 50 + 5]
    assert held(TWO, (0, 2), optimizer="muon") == [300 + 110 + 2 * 40 + 12]
    assert whole_model_memory_bytes(TWO, "muon") == 300 + 110 + 80 + 12


def test_without_knowing_the_matrices_the_larger_state_is_assumed_and_said():
    unknown = profile_of([(100, None, 7, 1.0), (50, 50, 5, 1.0)])
    assert held(unknown, optimizer="muon") == [200 + 200 + 14, 100 + 50 + 5]
    assert memory_assumptions(TWO, "muon") == []
    assert memory_assumptions(unknown, "adamw") == []
    (sentence,) = memory_assumptions(unknown, "muon")
    assert sentence.startswith("muon keeps as much for every parameter as for those that are no ")


@pytest.mark.parametrize(
    ("rule", "copies"), [(None, 0), ("spectrain", 1), ("last-update", 2), ("second-order", 3)]
)
def test_predicted_weights_hold_the_past_updates_and_themselves_where_weights_lag(rule, copies):
    # The engine keeps the past updates also at the last stage, whose weights do not lag.
    kept = max(copies - 1, 0)
    assert held(TWO, optimizer="sgd", prediction_rule=rule) == [
        (2 + copies) * 100 + 14,
        (2 + kept) * 50 + 5,
    ]
    assert held(TWO, optimizer="sgd", prediction_rule=rule, schedule="1f1b") == [214, 105]


@pytest.mark.parametrize(("rule", "kept"), [("spectrain", 0), ("last-update", 1), ("balanced", 2)])
def test_stashed_predictions_are_held_for_every_micro_batch_in_flight(rule, kept):
    profile = profile_of([(100, 100, 7, 1.0)] * 4)
    for micro_batches, versions in ((1, 3), (2, 2), (8, 1)):
        options = PlanOptions(weights="stash", optimizer="sgd", micro_batches=micro_batches)
        first = CostModel(profile, 4, options).factors[0].memory
        assert (first.parameters, first.activations) == (2 + versions, 4)
        predicting = options.model_copy(update={"prediction_rule": rule})
        held = [stage.memory.parameters for stage in CostModel(profile, 4, predicting).factors]
        # The first stage is three micro-batches ahead and has one more in its passes.
        assert held == [2 + kept + 4, 2 + kept + 3, 2 + kept + 2, 2 + kept]


@pytest.mark.parametrize(
    ("optimizer", "recipe", "rule"),
    [
        ("adamw", "auto", "second-order"),
        ("muon", "auto", "balanced"),
        ("momentum", "auto", "spectrain"),
        ("other", "auto", None),
        ("momentum", "last-update", "last-update"),
        ("adamw", "none", None),
    ],
)
def test_the_copies_of_a_recipe_count_in_the_memory_of_a_plan(optimizer, recipe, rule):
    given = {"stages": 2, "weights": "live", "optimizer": optimizer}
    planned = hpc_lpm.plan(TWO, **given, recipe=recipe)
    named = hpc_lpm.plan(TWO, **given, prediction_rule=rule)
    assert planned.options["prediction_rule"] == rule
    assert [stage.memory_bytes for stage in planned.stages] == [
        stage.memory_bytes for stage in named.stages
    ]
    flushed = hpc_lpm.plan(TWO, stages=2, optimizer=optimizer, schedule="1f1b", recipe=recipe)
    assert flushed.options["prediction_rule"] is None


def test_with_replicas_nothing_is_held_for_a_recipe_that_does_not_go_with_them():
    for replicas, rule in ((1, "spectrain"), (2, None)):
        options = PlanOptions(
            weights="live", optimizer="momentum", recipe="auto", replicas=replicas
        )
        assert CostModel(TWO, 2, options).options.prediction_rule == rule


@pytest.mark.parametrize(
    ("micro_batches", "lead", "rule"),
    [(2, 1, "balanced"), (1, 2, "balanced"), (1, 4, "second-order")],
)
def test_a_plan_has_the_rule_that_its_recipe_takes_at_its_largest_lag(micro_batches, lead, rule):
    given = {"stages": 2, "weights": "live", "optimizer": "muon", "recipe": "auto"}
    plan = hpc_lpm.plan(TWO, **given, micro_batches=micro_batches, lead=lead)
    assert plan.options["prediction_rule"] == rule
    assert hpc_lpm.plan(TWO, **{**given, "stages": 1}).options["prediction_rule"] is None


def test_a_plan_is_priced_anew_for_muon_with_and_without_its_profile():
    model = CostModel(TWO, 2, PlanOptions(weights="live", optimizer="sgd"))
    plan = price_plan(model, (0, 1, 2), "by hand", "0" * 64)
    for profile in (None, TWO):
        use = plan_for(plan, Path("plan.json"), profile=profile, optimizer="muon")
        assert use.memory_bytes == (354, 155)
    use = plan_for(plan, Path("plan.json"), prediction_rule="last-update")
    assert use.memory_bytes == (414, 155)
    assert "made for no prediction, and is used for prediction by last-update" in use.notice


def test_too_little_memory_is_said_where_more_stages_would_use_more_versions_than_are_kept():
    profile = profile_of([(100, 100, 7, 1.0)] * 4)
    with pytest.raises(InputError, match="no plan of 2 stages is within the memory limits: stage"):
        hpc_lpm.plan(profile, stages=2, micro_batches=1, weights="double-buffer", memory_limit=10)


def test_plans_within_memory_limits_are_those_of_trying_every_partition():
    random = Random(3)
    compared = refused = 0
    for _ in range(150):
        layers = []
        for _ in range(random.randint(2, 6)):
            parameters = random.randint(0, 20)
            matrices = random.choice([None, random.randint(0, parameters)])
            layers.append((parameters, matrices, random.randint(0, 6), random.randint(1, 5) / 4))
        stages = random.randint(1, len(layers))
        limit = random.randint(20, 250)
        options = PlanOptions(
            weights="live", optimizer="muon", tolerance=0.25, memory_limit=limit, micro_batches=8
        )
        priced = []
        for inner in combinations(range(1, len(layers)), stages - 1):
            cuts = (0, *inner, len(layers))
            times, sizes = [], []
            for number, (start, stop) in enumerate(pairwise(cuts)):
                size = 0
                for parameters, matrices, activations, _ in layers[start:stop]:
                    size += 2 * parameters + (matrices or 0) + 2 * (parameters - (matrices or 0))
                    size += (stages - number) * activations
                sizes.append(size)
                times.append(sum(2 * Fraction(layer[3]) for layer in layers[start:stop]))
            if max(sizes) <= limit:
                priced.append((max(times), 3 * (stages - 1), max(sizes), cuts))
        model = CostModel(profile_of(layers), stages, options)
        if not priced:
            with pytest.raises(InputError):
                optimal_cuts(model)
            refused += 1
            continue
        most = Fraction(5, 4) * min(entry[0] for entry in priced)
        best = min(entry[1:] for entry in priced if entry[0] <= most)
        assert optimal_cuts(model) == best[2]
        compared += 1
    assert min(compared, refused) > 20


def test_the_profile_tells_hidden_matrices_from_the_rest():
    module = nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    inputs = torch.randn(2, 4), torch.tensor([0, 2])
    found = hpc_lpm.profile(module, inputs, loss=cross_entropy, repeats=1)
    # The head is none of them, and neither are biases and what normalises.
    matrices = {one.name: one.matrix_parameter_bytes for one in found.layers}
    assert sum(matrices.values()) == 4 * (4 * 8 + 8 * 6)
    assert matrices["0"] == 4 * 32
    assert matrices["4"] == 0
    assert sum(one.parameter_bytes for one in found.layers) == 4 * (40 + 16 + 54 + 21)
