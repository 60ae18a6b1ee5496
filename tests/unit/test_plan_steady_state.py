"""Seconds of a step: the formula of the all-reduce, the slowest cycle, and the simulator."""

from fractions import Fraction
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.cycle_ratio import Constraint, slowest_cycle
from hpc_lpm.planning.devices.steady_state import steady_step
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.stage_times import ring_all_reduce_seconds
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.schedules.clock import PipelineClock
from hpc_lpm.schedules.instructions import Forward, Update
from hpc_lpm.schedules.playback import play
from hpc_lpm.schedules.registry import SCHEDULES


def ring_played(size, replicas, latency, bandwidth):
    """Send the pieces of a ring all-reduce one after the other and return when the last arrives."""
    pieces = [[{owner} for _ in range(replicas)] for owner in range(replicas)]
    now = Fraction(0)
    for offset, gathers in ((0, False), (1, True)):
        for turn in range(replicas - 1):
            now += latency + Fraction(size, replicas) / bandwidth
            chosen = [(rank + offset - turn) % replicas for rank in range(replicas)]
            sent = [(piece, set(pieces[rank][piece])) for rank, piece in enumerate(chosen)]
            for rank, (piece, summed) in enumerate(sent):
                receiver = pieces[(rank + 1) % replicas]
                receiver[piece] = summed if gathers else receiver[piece] | summed
    everyone = set(range(replicas))
    assert all(piece == everyone for rank in pieces for piece in rank)
    return now


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 8])
def test_ring_all_reduce_takes_as_long_as_its_messages(replicas):
    link = LinkProfile(latency_seconds=0.25, bandwidth_bytes_per_second=7.0)
    expected = ring_played(1001, replicas, Fraction(1, 4), 7)
    assert ring_all_reduce_seconds(1001, replicas, link) == expected
    if replicas == 3:
        assert expected == 4 * Fraction(1, 4) + Fraction(4, 3) * Fraction(1001, 7)


def test_nothing_to_average_takes_no_time():
    link = LinkProfile(latency_seconds=1.0, bandwidth_bytes_per_second=1.0)
    assert ring_all_reduce_seconds(0, 4, link) == 0


def all_ratios(constraints, events):
    """Return the ratio of every simple cycle, from all orders of all sets of events."""
    for length in range(1, events + 1):
        for order in permutations(range(events), length):
            if order[0] != min(order):
                continue
            totals = [(0, 0)]
            for source, target in zip(order, (*order[1:], order[0]), strict=True):
                edges = [c for c in constraints if (c.source, c.target) == (source, target)]
                totals = [(t + c.ticks, s + c.steps) for t, s in totals for c in edges]
            yield from (Fraction(ticks, steps) for ticks, steps in totals)


@st.composite
def constraint_graphs(draw):
    events = draw(st.integers(1, 5))
    number = st.integers(0, events - 1)
    constraints = []
    for source, target, ticks, steps in draw(
        st.lists(st.tuples(number, number, st.integers(0, 9), st.integers(0, 2)), max_size=9)
    ):
        # Within a step time goes on: what has no step in between goes to a later event.
        within = 1 if steps == 0 and target <= source else steps
        constraints.append(Constraint(source, target, ticks, within))
    return constraints, events


@settings(max_examples=600, deadline=None, derandomize=True)
@given(constraint_graphs(), st.fractions(0, 9, max_denominator=4))
def test_slowest_cycle_is_that_of_all_simple_cycles(graph, above):
    constraints, events = graph
    slowest = max(all_ratios(constraints, events), default=None)
    cycle = slowest_cycle(constraints, events, above)
    if slowest is None or slowest <= above:
        assert cycle is None
    else:
        assert cycle.ratio == slowest
        for one, following in zip(
            cycle.constraints, (*cycle.constraints[1:], cycle.constraints[0]), strict=True
        ):
            assert one.target == following.source


def profile_of(layers, latency, bandwidth, *, overlap):
    return Profile(
        model="random",
        micro_batch=2,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name="layer",
                forward_seconds=forward,
                backward_seconds=backward,
                output_bytes=output,
                parameter_bytes=parameters,
                activation_bytes=0,
            )
            for forward, backward, output, parameters in layers
        ),
        link=LinkProfile(
            latency_seconds=latency, bandwidth_bytes_per_second=bandwidth, overlap=overlap
        ),
    )


def random_pipeline(random):
    """Return a model of one layer a stage; times are multiples of 1/4, so that floats are exact."""
    stages = random.randint(1, 5)
    layers = [
        (random.randint(0, 24) / 4, random.randint(0, 24) / 4, random.randint(0, 12), parameters)
        for parameters in random.choices(range(0, 44, 4), k=stages)
    ]
    profile = profile_of(
        layers, random.choice([0.0, 0.25, 1.0]), 4.0, overlap=random.random() < 0.5
    )
    options = PlanOptions(
        lead=random.randint(1, 4),
        micro_batches=random.randint(1, 5),
        weights=random.choice(["replay", "live", "stash"]),
        replicas=random.choice([1, 2, 4]),
    )
    return CostModel(profile, stages, options)


def played_updates(model, steps):
    """Play the real programmes; return when the first stage updates, until some stage drains."""
    options, layers, link = model.options, model.profile.layers, model.profile.link
    latency = Fraction(link.latency_seconds)
    clock = PipelineClock(
        [layer.forward_seconds for layer in layers],
        [layer.backward_seconds for layer in layers],
        [link.latency_seconds + layer.output_bytes / 4 for layer in layers[:-1]],
        overlap=link.overlap,
        averaging_seconds=[
            float(ring_played(layer.parameter_bytes, options.replicas, latency, 4))
            if layer.parameter_bytes
            else 0.0
            for layer in layers
        ],
    )
    lines = play(
        SCHEDULES.named("fbp").programmes(
            model.stages,
            options.micro_batches,
            steps * options.micro_batches,
            options.lead,
            replay=options.weights == "replay",
            replicas=options.replicas,
        ),
        clock,
    ).timelines
    drain = min(
        max(i.end_seconds for i in line if isinstance(i.instruction, Forward)) for line in lines
    )
    updates = [i.end_seconds for i in lines[0] if isinstance(i.instruction, Update)]
    return [update for update in updates if update <= drain]


def test_a_step_takes_what_the_real_programmes_take_once_they_repeat():
    # Within 1 % after 100 steps, as a pattern may take several steps and the start is still there;
    # and to the last bit in nearly all cases, for some number of steps up to 12.
    random = Random(4)
    cases = 250
    exact = 0
    for _ in range(cases):
        model = random_pipeline(random)
        predicted = steady_step(model, tuple(range(model.stages + 1))).seconds
        updates = played_updates(model, 160)
        assert len(updates) > 120
        measured = (updates[-1] - updates[-101]) / 100
        assert measured == pytest.approx(float(predicted), rel=0.01)
        exact += any(updates[-1] - updates[-1 - n] == n * predicted for n in range(1, 13))
    assert exact > 0.97 * cases


@pytest.mark.parametrize(
    ("layers", "lead", "micro_batches", "replicas"),
    [
        ([(0.0, 0.5, 12, 40), (0.75, 0.5, 5, 40)], 2, 4, 4),
        ([(0.0, 1.25, 12, 80), (0.25, 0.0, 4, 80)], 3, 5, 4),
        ([(0.0, 1.0, 12, 40), (0.25, 1.0, 10, 40)], 2, 3, 2),
        ([(0.25, 0.0, 11, 80), (0.0, 0.0, 6, 80)], 2, 5, 2),
    ],
    ids=["gradients 1", "gradients 2", "activations 1", "activations 2"],
)
def test_messages_that_pile_up_behind_an_all_reduce_wait_for_the_link(
    layers, lead, micro_batches, replicas
):
    options = PlanOptions(weights="live", lead=lead, micro_batches=micro_batches, replicas=replicas)
    model = CostModel(profile_of(layers, 0.0, 4.0, overlap=True), 2, options)
    updates = played_updates(model, 160)
    step = steady_step(model, (0, 1, 2)).seconds
    assert updates[-1] - updates[-61] == pytest.approx(float(60 * step), rel=1e-12)


@pytest.mark.parametrize("overlap", [True, False])
def test_equal_micro_batches_take_the_longest_stage_link_or_round_trip(overlap):
    random = Random(5)
    hidden_by = set()
    for _ in range(200):
        model = random_pipeline(random)
        update = {"weights": "live", "replicas": 1, "overlap": overlap}
        options = model.options.model_copy(update=update)
        stages, lead, steps = model.stages, options.lead, options.micro_batches
        layers, link = model.profile.layers, model.profile.link
        times = [Fraction(layer.forward_seconds + layer.backward_seconds) for layer in layers]
        sends = [Fraction(link.latency_seconds + layer.output_bytes / 4) for layer in layers[:-1]]
        around = [Fraction(0), *sends, Fraction(0)]
        cycles = [*times, *sends] if overlap else []
        for first in range(stages):
            for last in range(first if not overlap else first + 1, stages):
                outside = 0 if overlap else 2 * (around[first] + around[last + 1])
                taken = sum(times[first : last + 1]) + 2 * sum(sends[first:last]) + outside
                cycles.append(taken / (lead * (last - first) + 1))
        step = steady_step(CostModel(model.profile, stages, options), tuple(range(stages + 1)))
        assert step.seconds == steps * max(cycles)
        hidden_by.add((lead, step.by_messages))
    enough = 3 if overlap else 1
    assert {lead for lead, waits in hidden_by if waits} == set(range(1, enough))
