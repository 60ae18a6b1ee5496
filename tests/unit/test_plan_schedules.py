"""Plans for every schedule: what they price against what the schedule really does when played."""

from itertools import product

import pytest

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import explain
from hpc_lpm.planning.memory import whole_model_memory_bytes
from hpc_lpm.planning.options import OPTIMIZER_COPIES, PlanOptions
from hpc_lpm.planning.pricing import make_plan, price_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.schedules.instructions import Backward, Forward, Replay, Update
from hpc_lpm.schedules.playback import UnitClock, play
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, SCHEDULES

SHAPES = list(product((1, 2, 3, 5), (1, 2, 3, 4, 8), (1, 2, 3)))
POLICIES = ("replay", "live", "stash")
PARAMETERS, ACTIVATIONS, FORWARD, BACKWARD = 1000, 7, 1.0, 2.0


def profile_of(layers):
    return Profile(
        model="even",
        micro_batch=2,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=FORWARD,
                backward_seconds=BACKWARD,
                output_bytes=1,
                parameter_bytes=PARAMETERS,
                activation_bytes=ACTIVATIONS,
            )
            for number in range(layers)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )


def played(schedule, stages, micro_batches, lead, replicas, *, replay):
    """Play a whole pipeline; return for every stage the most in flight, older versions, replays.

    In flight are micro-batches between their passes; older versions are those that their forwards
    have seen and updates have since replaced; replays are those of one step in steady state.
    """
    steps = 8 + 4 * lead * stages
    programmes = schedule.programmes(
        stages, micro_batches, steps * micro_batches, lead, replay=replay, replicas=replicas
    )
    playback = play(programmes, UnitClock())
    assert playback.stopped == [None] * stages
    return [follow(line, steps // 2, micro_batches) for line in playback.timelines]


def follow(line, settled_step, micro_batches):
    updates, most, older, replays, seen = 0, 0, 0, 0, {}
    for timed in line:
        match timed.instruction:
            case Forward(micro_batch):
                seen[micro_batch] = updates
                most = max(most, len(seen))
            case Replay(micro_batch):
                replays += micro_batch // micro_batches == settled_step
            case Backward(micro_batch):
                del seen[micro_batch]
            case Update():
                updates += 1
        older = max(older, len({version for version in seen.values() if version < updates}))
    return most, older, replays


WHOLE = [
    name
    for name, schedule in SCHEDULES.items()
    if schedule.chunks == 1 and not schedule.splits_backward
]
"""Schedules of one stage on each device, which runs whole backwards."""


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("weights", POLICIES)
def test_a_plan_prices_what_its_schedule_does_when_it_is_played(name, replicas, weights):
    schedule = SCHEDULES.named(name)
    for stages, micro_batches, lead in SHAPES:
        options = PlanOptions(
            schedule=name,
            micro_batches=micro_batches,
            lead=lead,
            replicas=replicas,
            weights=weights,
            optimizer="adam",
        )
        model = CostModel(profile_of(stages), stages, options)
        plan = price_plan(model, tuple(range(stages + 1)), "by hand", "0" * 64)
        done = played(schedule, stages, micro_batches, lead, replicas, replay=weights == "replay")
        for stage, (in_flight, older, replays) in zip(plan.stages, done, strict=True):
            stashed = older if weights == "stash" else 0
            held = 2 + OPTIMIZER_COPIES["adam"] + stashed
            assert stage.memory_bytes == held * PARAMETERS + in_flight * ACTIVATIONS
            passes = micro_batches * (FORWARD + BACKWARD) + replays * FORWARD
            assert stage.compute_seconds == pytest.approx(passes / micro_batches, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_forwards_see_the_version_that_the_schedule_says(name):
    schedule = SCHEDULES.named(name)
    for (devices, micro_batches, lead), replicas in product(SHAPES, (1, 2)):
        stages = devices * schedule.chunks
        place = (stages, micro_batches, lead)
        total = micro_batches * (4 + lead * devices)
        programmes = schedule.programmes(stages, micro_batches, total, lead, replicas=replicas)
        for stage, programme in enumerate(programmes):
            updates = 0
            for instruction in programme:
                match instruction:
                    case Forward(micro_batch):
                        said = schedule.version(micro_batch, stage, *place, replicas=replicas)
                        assert said == updates
                    case Update():
                        updates += 1


def test_gpipe_holds_all_micro_batches_of_a_step():
    options = PlanOptions(schedule="gpipe", micro_batches=8, optimizer="sgd")
    plan = make_plan(profile_of(4), "0" * 64, 2, options=options)
    assert [stage.memory_bytes for stage in plan.stages] == [2 * 2000 + 8 * 14] * 2


def test_a_schedule_that_flushes_replays_nothing_and_needs_no_versions():
    for name in ("gpipe", "1f1b", "naive"):
        plans = {
            weights: make_plan(
                profile_of(6), "0" * 64, 3, options=PlanOptions(schedule=name, weights=weights)
            ).stages
            for weights in POLICIES
        }
        assert plans["replay"] == plans["live"] == plans["stash"]


def test_the_plan_records_its_schedule_and_what_it_takes_to_price_it_anew():
    plan = make_plan(profile_of(4), "0" * 64, 2, options=PlanOptions(schedule="1f1b"))
    assert plan.options["schedule"] == "1f1b"
    assert plan.micro_batch == 2
    assert [stage.parameter_bytes for stage in plan.stages] == [2000, 2000]
    assert [stage.activation_bytes for stage in plan.stages] == [14, 14]
    assert PlanOptions().schedule == DEFAULT_SCHEDULE


def test_a_memory_limit_holds_for_what_the_schedule_keeps():
    # 2 x 1000 + 7 x 8 a layer under GPipe with 8 micro-batches, but 7 x 2 and 7 x 1 under 1F1B.
    limit = 2 * 2000 + 14 * 2
    options = PlanOptions(micro_batches=8, optimizer="sgd", memory_limit=limit)
    one_ahead = options.model_copy(update={"schedule": "1f1b"})
    assert make_plan(profile_of(4), "0" * 64, 2, options=one_ahead).cuts == (0, 2, 4)
    everything = options.model_copy(update={"schedule": "gpipe"})
    with pytest.raises(InputError, match=r"needs 4,112 bytes .* limit is 4,028; .* 4 stages"):
        make_plan(profile_of(4), "0" * 64, 2, options=everything)


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("fbp", ()),
        ("gpipe", ("schedule gpipe empties the pipeline before every update",)),
        ("1f1b", ("schedule 1f1b empties the pipeline before every update",)),
    ],
)
def test_the_explanation_says_what_the_period_leaves_out(name, sentences):
    model = CostModel(profile_of(4), 2, PlanOptions(schedule=name))
    explanation = explain(model, (0, 2, 4))
    assert len(explanation.not_covered) == len(sentences)
    for found, expected in zip(explanation.not_covered, sentences, strict=True):
        assert found.startswith(expected)
    assert (explanation.stretch is None) == bool(sentences)


def test_one_device_holds_the_whole_model_and_one_micro_batch():
    profile = profile_of(5)
    assert whole_model_memory_bytes(profile) == 4 * 5000 + 35
    assert whole_model_memory_bytes(profile, "sgd") == 2 * 5000 + 35


def test_unknown_schedule_is_bad_input_with_a_hint():
    with pytest.raises(InputError, match="did you mean 'gpipe'"):
        CostModel(profile_of(2), 2, PlanOptions(schedule="gpip"))
