"""The least time to a target on a number of devices, against trying everything by hand."""

from fractions import Fraction
from itertools import combinations, pairwise
from random import Random

import pytest
from test_plan_devices import (
    COPIES,
    TooLongError,
    best_cuts,
    even_profile,
    random_profiles,
    repeating_step,
    stages_of,
    working_step,
)

from hpc_lpm.errors import InputError
from hpc_lpm.planning.devices.search import search_for_target
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.measured import MeasuredSteps, Measurements

POLICIES = ("live", "replay", "stash")


class FlushedStage:
    """One stage of 1F1B with a flush, that does what its list says as soon as it can."""

    def __init__(self, times, ahead, micro_batches, steps):
        self.times, self.done, self.now, self.updates = times, 0, Fraction(0), []
        self.list = []
        for step in range(steps):
            forwards = [("F", step * micro_batches + n) for n in range(micro_batches)]
            backwards = [("B", step * micro_batches + n) for n in range(micro_batches)]
            self.list += forwards[:ahead]
            for forward, backward in zip(forwards[ahead:], backwards, strict=False):
                self.list += [forward, backward]
            self.list += [*backwards[micro_batches - ahead :], ("U", step)]


def flushed_step(times, micro_batches, lead, overlap, steps=9):
    """Return what the later steps take each; raise if they are not alike."""
    last = len(times) - 1
    stages = [
        FlushedStage(time, min(lead * (last - k), micro_batches - 1), micro_batches, steps)
        for k, time in enumerate(times)
    ]
    down, up = ({}, {}), ({}, {})  # when a message leaves and when it is there, by boundary
    free = {}
    moved = True
    while moved:
        moved = False
        for k, stage in enumerate(stages):
            while stage.done < len(stage.list) and _do(
                k, stage, last, down, up, free, overlap=overlap
            ):
                stage.done += 1
                moved = True
    took = [after - before for before, after in pairwise(stages[0].updates)]
    if len(set(took[-4:])) > 1:
        raise TooLongError
    return took[-1]


def _do(k, stage, last, down, up, free, *, overlap):
    kind, number = stage.list[stage.done]
    times = stage.times
    if kind == "U":
        stage.now += times.all_reduce
        stage.updates.append(stage.now)
        return True
    forward = kind == "F"
    boxes, here = (down, k - 1) if forward else (up, k)
    needs = k > 0 if forward else k < last
    costs = times.receive if forward else times.send
    if needs:
        if (here, number) not in boxes[1]:
            return False
        if overlap:
            stage.now = max(stage.now, boxes[1][here, number])
        else:
            stage.now = max(stage.now, boxes[0][here, number]) + costs
    stage.now += times.forward if forward else times.backward
    boxes, there = (down, k) if forward else (up, k - 1)
    sends = k < last if forward else k > 0
    if sends:
        costs = times.send if forward else times.receive
        leaves = max(stage.now, free.get((kind, there), Fraction(0)))
        boxes[0][there, number] = leaves
        boxes[1][there, number] = free[kind, there] = leaves + costs
        if not overlap:
            stage.now += costs
    return True


def flushed_cuts(profile, stages, lead, options, micro_batches):
    """Return the cuts that planner lpm's order of merits puts first under 1F1B, or None."""
    priced = []
    live = options.model_copy(update={"weights": "live"})
    for inner in combinations(range(1, len(profile.layers)), stages - 1):
        cuts = (0, *inner, len(profile.layers))
        held = stages_of(profile, cuts, lead, live, 1, micro_batches)
        memory = 0
        for number, (start, stop) in enumerate(pairwise(cuts)):
            layers = profile.layers[start:stop]
            flying = min(lead * (stages - 1 - number), micro_batches - 1) + 1
            size = (2 + COPIES[options.optimizer]) * sum(one.parameter_bytes for one in layers)
            memory = max(memory, size + flying * sum(one.activation_bytes for one in layers))
        if options.memory_limit is not None and memory > options.memory_limit:
            continue
        longest = Fraction(0)
        for stage in held:
            work = stage.forward + stage.backward
            moves = 2 * (stage.send + stage.receive)
            longest = (
                max(longest, work, stage.send)
                if profile.link.overlap
                else max(longest, work + moves)
            )
        sent = sum(profile.layers[cut - 1].output_bytes for cut in inner)
        priced.append((longest, sent, memory, cuts))
    if not priced:
        return None
    most = (1 + Fraction(options.tolerance)) * min(entry[0] for entry in priced)
    return min(entry[1:] for entry in priced if entry[0] <= most)[2]


def steps_needed(points, stages, micro_batches, lead, replicas):
    """Return the ratio of steps from the points measured, None beyond them."""
    lag = Fraction(lead * (stages - 1) + (replicas > 1), micro_batches)
    known = sorted({(Fraction(0), Fraction(1)), *points})
    for (a, low), (b, high) in pairwise(known):
        if a <= lag <= b:
            return low + (high - low) * (lag - a) / (b - a)
    return Fraction(1) if lag == 0 else None


def tried(profiles, devices, batch, options, points):
    """Return every candidate, best first: what its steps cost, then what it is."""
    found = []
    for way, policy in enumerate((*POLICIES, "flush")):
        for profile in profiles:
            for stages in range(1, min(devices, len(profile.layers)) + 1):
                replicas = devices // stages
                if stages * replicas != devices or batch % (replicas * profile.micro_batch):
                    continue
                micro_batches = batch // (replicas * profile.micro_batch)
                given = (profile, stages, replicas, micro_batches)
                for lead, step, cuts in _leads(given, policy, options):
                    ratio = Fraction(1)
                    if policy != "flush":
                        ratio = steps_needed(points, stages, micro_batches, lead, replicas)
                    time = step if ratio is None else step * ratio
                    found.append(
                        (ratio is None, time, lead, stages, micro_batches, way, step, cuts)
                    )
    return sorted(found)


def _leads(given, policy, options):
    profile, stages, replicas, micro_batches = given
    overlap, before = profile.link.overlap, None
    for lead in range(1, 9):
        if policy == "flush":
            cuts = flushed_cuts(profile, stages, lead, options, micro_batches)
        else:
            options = options.model_copy(update={"weights": policy})
            cuts = best_cuts(profile, stages, lead, options, replicas, micro_batches)
        if cuts is None:
            return
        if policy == "flush":
            live = options.model_copy(update={"weights": "live"})
            held = stages_of(profile, cuts, lead, live, replicas, micro_batches)
            step = flushed_step(held, micro_batches, lead, overlap)
            if before is not None and step >= before:
                return
            before = step
            yield lead, step, cuts
            continue
        held = stages_of(profile, cuts, lead, options, replicas, micro_batches)
        step = repeating_step(held, micro_batches, lead, overlap)
        if step is None:
            raise TooLongError
        yield lead, step, cuts
        if step == working_step(held, micro_batches, overlap):
            return


def measured_at(optimizer, shapes):
    """Return measurements of (stages, micro-batches, ratio), and their points."""
    rows = tuple(
        MeasuredSteps(
            model_family="random",
            optimizer=optimizer,
            recipe="none",
            stages=stages,
            micro_batches=micro_batches,
            lead=1,
            weights="live",
            first_stage_lag=(stages - 1) / micro_batches,
            steps_ratio=ratio,
            seeds=1,
            source="drawn",
        )
        for stages, micro_batches, ratio in shapes
    )
    points = {(Fraction(k - 1, m), Fraction(ratio)) for k, m, ratio in shapes}
    return Measurements(rows, "what was drawn"), points


def test_the_order_of_all_ways_is_that_of_trying_everything() -> None:
    random = Random(5)
    compared = flushes = deep = partly_unknown = 0
    for _ in range(60):
        profiles = random_profiles(random)
        devices, batch = random.choice([1, 2, 4]), random.choice([2, 4, 8])
        optimizer = random.choice(list(COPIES))
        options = PlanOptions(
            tolerance=random.choice([0.0, 0.02]),
            memory_limit=random.choice([None, None, random.randint(60, 300)]),
            optimizer=optimizer,
        )
        shapes = {
            (stages - 1) / micro_batches: (stages, micro_batches, 1 + random.randint(0, 8) / 16)
            for stages, micro_batches in ((2, 4), (2, 2), (4, 4), (4, 2))[: random.randint(1, 4)]
        }
        measured, points = measured_at(optimizer, shapes.values())
        try:
            expected = tried(profiles, devices, batch, options, points)
        except TooLongError:
            continue
        if not expected:
            continue
        ways = [options.model_copy(update={"weights": policy}) for policy in POLICIES]
        ways.append(ways[0].model_copy(update={"schedule": "1f1b"}))
        if expected[0][0]:
            with pytest.raises(InputError, match="what a step is worth is unknown for all"):
                search_for_target(profiles, devices, batch, ways, measured=measured)
            continue
        found = search_for_target(profiles, devices, batch, ways, measured=measured)
        assert [
            (
                one.target_seconds is None,
                one.step.seconds if one.target_seconds is None else one.target_seconds,
                one.lead,
                one.stages,
                one.micro_batches,
                3 if one.model.schedule.flushes else POLICIES.index(one.model.options.weights),
                one.step.seconds,
                one.cuts,
            )
            for one in found.candidates
        ] == expected
        compared += 1
        flushes += found.best.model.schedule.flushes
        deep += found.best.stages > 1 and not found.best.model.schedule.flushes
        partly_unknown += any(one.target_seconds is None for one in found.candidates)
    assert compared > 30
    assert min(flushes, deep, partly_unknown) > 2


def even(ratio, flush=True, devices=4, batch=8, **options):
    """Search on equal stages that send nothing, with this ratio of steps at a lag of 3/8."""
    live = PlanOptions(optimizer="adamw", weights="live", memory_limit=12_000, **options)
    ways = [live, live.model_copy(update={"schedule": "1f1b"})] if flush else [live]
    measured, _ = measured_at("adamw", [(4, 8, ratio)])
    # Four copies of 8000 bytes, so that a stage may hold two of eight layers and no more.
    profile = even_profile(parameters=1000, bandwidth=1e9)
    return search_for_target([profile], devices, batch, ways, measured=measured)


def test_a_flush_wins_where_lagging_steps_are_worth_less_than_it_costs():
    # 4 equal stages and 8 micro-batches: a flush takes (8 + 3) / 8 of a step without.
    assert even(1.25).best.model.options.schedule == "fbp"
    assert even(1.5).best.model.options.schedule == "1f1b"
    assert even(1.5, flush=False).best.model.options.schedule == "fbp"
    flushed = even(1.5).best
    assert float(flushed.step.seconds / even(1.25).best.step.seconds) == pytest.approx(
        11 / 8, rel=1e-3
    )


def test_what_is_of_unknown_worth_is_never_chosen():
    found = even(1.0, batch=4)  # the first stage lags by 3/4, measured is 3/8
    assert found.best.model.options.schedule == "1f1b"
    unknown = found.candidates[-1]
    assert unknown.model.options.schedule == "fbp"
    assert unknown.target_seconds is None
    assert unknown.step.seconds < found.best.step.seconds
    with pytest.raises(InputError, match=r"unknown for all 2 ways to use 4 .* --efficiency"):
        even(1.0, flush=False, batch=4)
