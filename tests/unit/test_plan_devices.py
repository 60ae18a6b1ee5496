"""The search over stages and replicas against trying everything, priced from the definitions."""

from fractions import Fraction
from itertools import combinations, pairwise
from random import Random

import pytest

from hpc_lpm.errors import InputError
from hpc_lpm.planning.devices.candidates import Reason
from hpc_lpm.planning.devices.search import search_devices
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

COPIES = {"sgd": 0, "momentum": 1, "adam": 2}


class Stage:
    """Times of one stage, from the layers that it holds."""

    def __init__(self, profile, held, behind, options, replicas, micro_batches):
        bandwidth = Fraction(profile.link.bandwidth_bytes_per_second)
        latency = Fraction(profile.link.latency_seconds)
        self.forward = sum(Fraction(layer.forward_seconds) for layer in held)
        self.backward = sum(Fraction(layer.backward_seconds) for layer in held)
        self.send = latency + held[-1].output_bytes / bandwidth
        parameters = sum(layer.parameter_bytes for layer in held)
        ring = 2 * (replicas - 1) * latency
        ring += Fraction(2 * (replicas - 1), replicas) * parameters / bandwidth
        self.all_reduce = ring if parameters else Fraction(0)
        lagged = behind + 1 if replicas > 1 else behind
        self.replays = min(lagged, micro_batches) if options.weights == "replay" else 0
        versions = -(-lagged // micro_batches) if options.weights == "stash" else 0
        self.memory = (2 + COPIES[options.optimizer] + versions) * parameters
        self.memory += (behind + 1) * sum(layer.activation_bytes for layer in held)


def stages_of(profile, cuts, lead, options, replicas, micro_batches):
    last = len(cuts) - 2
    stages = [
        Stage(
            profile,
            profile.layers[start:stop],
            lead * (last - number),
            options,
            replicas,
            micro_batches,
        )
        for number, (start, stop) in enumerate(pairwise(cuts))
    ]
    stages[-1].send = Fraction(0)
    for stage, previous in zip(stages, [None, *stages], strict=False):
        stage.receive = previous.send if previous else Fraction(0)
    return stages


def working_step(stages, micro_batches, overlap):
    """What a step takes if nobody ever waits for a message."""
    longest = Fraction(0)
    for stage in stages:
        moves = 0 if overlap else 2 * (stage.receive + stage.send)
        busy = micro_batches * (stage.forward + stage.backward + moves)
        busy += stage.replays * stage.forward
        between = stage.forward + (0 if overlap else stage.receive + stage.send)
        busy += max(Fraction(0), stage.all_reduce - between)
        longest = max(longest, busy, micro_batches * stage.send if overlap else 0)
    return longest


def repeating_step(stages, micro_batches, lead, overlap, steps=120):
    """Let events happen in order until they repeat themselves; None if they do not soon enough."""
    count = len(stages)
    forward_sent = [[] for _ in stages]
    gradient_sent = [[] for _ in stages]
    free = [Fraction(0)] * count
    down, up = [Fraction(0)] * count, [Fraction(0)] * count
    averaged = [Fraction(0)] * count
    happened = []
    for number in range(steps * micro_batches):
        events = []
        for k, stage in enumerate(stages):
            begin = free[k]
            if k and number >= lead:
                begin = max(begin, forward_sent[k - 1][number - lead])
            events.append(begin)
            sent = begin + stage.forward + (0 if overlap else stage.receive)
            free[k] = sent + (0 if overlap else stage.send)
            if overlap:
                down[k] = max(down[k], sent) + stage.send
                sent = down[k]
            forward_sent[k].append(sent)
        for k in reversed(range(count)):
            stage = stages[k]
            place = number % micro_batches
            begin = free[k] if place else max(free[k], averaged[k])
            begin += stage.forward if place < stage.replays else 0
            if k < count - 1:
                begin = max(begin, gradient_sent[k + 1][number])
            events.append(begin)
            sent = begin + stage.backward + (0 if overlap else stage.send)
            free[k] = sent + (0 if overlap else stage.receive)
            if overlap:
                up[k] = max(up[k], sent) + stage.receive
                sent = up[k]
            gradient_sent[k].append(sent)
            if place == micro_batches - 1:
                averaged[k] = free[k] + stage.all_reduce
        happened.append(events + down + up)
    return _repeats_every(happened, micro_batches, lead)


def _repeats_every(happened, micro_batches, lead):
    for steps in range(1, 13):
        back = steps * micro_batches
        moved = {
            now - then
            for number in range(len(happened) - lead - micro_batches, len(happened))
            for now, then in zip(happened[number], happened[number - back], strict=True)
            if now
        }
        if len(moved) == 1:
            return moved.pop() / steps
    return None


def best_cuts(profile, stages, lead, options, replicas, micro_batches):
    """Return the cuts that the planner's order of merits puts first, or None."""
    priced = []
    for inner in combinations(range(1, len(profile.layers)), stages - 1):
        cuts = (0, *inner, len(profile.layers))
        held = stages_of(profile, cuts, lead, options, replicas, micro_batches)
        memory = max(stage.memory for stage in held)
        if options.memory_limit is not None and memory > options.memory_limit:
            continue
        period = Fraction(0)
        for stage in held:
            work = stage.forward + stage.backward
            work += Fraction(stage.replays, micro_batches) * stage.forward
            if profile.link.overlap:
                period = max(period, work, stage.send)
            else:
                period = max(period, work + 2 * stage.send + 2 * stage.receive)
        sent = sum(profile.layers[cut - 1].output_bytes for cut in inner)
        priced.append((period, sent, memory, cuts))
    if not priced:
        return None
    longest = (1 + Fraction(options.tolerance)) * min(period for period, *_ in priced)
    return min(entry[1:] for entry in priced if entry[0] <= longest)[2]


class TooLongError(Exception):
    """An instance that does not repeat itself soon enough to tell."""


def tried(profiles, devices, batch, options):
    """Return everything that there is, best first, and who is beyond the memory limit."""
    results, beyond = [], 0
    for profile in profiles:
        for stages in range(1, min(devices, len(profile.layers)) + 1):
            replicas = devices // stages
            if stages * replicas != devices or batch % (replicas * profile.micro_batch):
                continue
            micro_batches = batch // (replicas * profile.micro_batch)
            for lead in range(1, 9):
                cuts = best_cuts(profile, stages, lead, options, replicas, micro_batches)
                if cuts is None:
                    beyond += 1
                    break
                held = stages_of(profile, cuts, lead, options, replicas, micro_batches)
                step = repeating_step(held, micro_batches, lead, profile.link.overlap)
                if step is None:
                    raise TooLongError
                results.append(
                    (step, lead, stages, micro_batches, replicas, profile.micro_batch, cuts)
                )
                if step == working_step(held, micro_batches, profile.link.overlap):
                    break
    return sorted(results), beyond


def random_profiles(random):
    layers = random.randint(1, 5)
    link = LinkProfile(
        latency_seconds=random.choice([0.0, 1.0]),
        bandwidth_bytes_per_second=random.choice([1.0, 4.0]),
        overlap=random.random() < 0.6,
    )
    sizes = random.sample([1, 2, 4], random.randint(1, 2))
    parameters = [random.randint(0, 20) for _ in range(layers)]
    return [
        Profile(
            model="random",
            micro_batch=size,
            device="cpu",
            dtype="float32",
            layers=tuple(
                LayerProfile(
                    name="layer",
                    forward_seconds=float(random.randint(1, 6)),
                    backward_seconds=float(random.randint(1, 6)),
                    output_bytes=random.randint(0, 8),
                    parameter_bytes=held,
                    activation_bytes=size * random.randint(0, 9),
                )
                for held in parameters
            ),
            link=link,
        )
        for size in sizes
    ]


def test_search_finds_all_combinations_in_the_order_that_trying_everything_finds():
    random = Random(11)
    compared = empty = beyond_some = 0
    for _ in range(250):
        profiles = random_profiles(random)
        devices, batch = random.choice([1, 2, 3, 4, 6]), random.choice([2, 4, 6, 8, 12])
        options = PlanOptions(
            tolerance=random.choice([0.0, 0.02, 0.5]),
            memory_limit=random.choice([None, random.randint(30, 250)]),
            weights=random.choice(["replay", "live", "stash"]),
            optimizer=random.choice(list(COPIES)),
        )
        try:
            expected, beyond = tried(profiles, devices, batch, options)
        except TooLongError:
            continue
        if not expected:
            with pytest.raises(InputError, match="memory limit" if beyond else "multiple"):
                search_devices(profiles, devices, batch, options)
            empty += 1
            continue
        found = search_devices(profiles, devices, batch, options)
        assert [
            (*candidate.merit, candidate.replicas, candidate.micro_batch, candidate.cuts)
            for candidate in found.candidates
        ] == expected
        assert sum(item.reason is Reason.MEMORY for item in found.left_out) == beyond
        compared += 1
        beyond_some += beyond > 0
    assert compared > 150
    assert empty > 20
    assert beyond_some > 8


def even_profile(
    layers=8, parameters=0, output=0, activations=0, bandwidth=1e6, micro_batch=1, model="even"
):
    return Profile(
        model=model,
        micro_batch=micro_batch,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=0.001 * micro_batch,
                backward_seconds=0.002 * micro_batch,
                output_bytes=output,
                parameter_bytes=parameters,
                activation_bytes=activations,
            )
            for number in range(layers)
        ),
        link=LinkProfile(latency_seconds=1e-6, bandwidth_bytes_per_second=bandwidth),
    )


LIVE = PlanOptions(weights="live")


def best_of(profile, devices=4, batch=8, options=LIVE):
    best = search_devices([profile], devices, batch, options).best
    return best.stages, best.replicas


def test_few_parameters_are_best_averaged_and_many_best_not():
    assert best_of(even_profile(parameters=8, output=100)) == (1, 4)
    assert best_of(even_profile(parameters=50_000, output=100)) == (4, 1)


def test_a_slow_link_moves_the_choice_from_replicas_to_stages():
    def chosen(bandwidth):
        return best_of(even_profile(parameters=50_000, output=100, bandwidth=bandwidth))

    assert chosen(1e9) == (1, 4)
    assert chosen(1e6) == (4, 1)


def test_large_activations_on_a_slow_link_keep_stages_together():
    assert best_of(even_profile(parameters=8, output=10**6)) == (1, 4)


def test_a_memory_limit_forces_more_stages():
    profile = even_profile(parameters=1000, bandwidth=1e9)
    # Three copies (momentum) of 8000 bytes on one device, of 4000 or 2000 on a stage.
    limits = {24_000: (1, 4), 23_999: (2, 2), 12_000: (2, 2), 11_999: (4, 1), 6_000: (4, 1)}
    options = {limit: LIVE.model_copy(update={"memory_limit": limit}) for limit in limits}
    assert {limit: best_of(profile, options=given) for limit, given in options.items()} == limits
    with pytest.raises(InputError, match=r"4 stages x 1 replicas .* 6,000 bytes per device"):
        search_devices([profile], 4, 8, LIVE.model_copy(update={"memory_limit": 5_999}))


def test_every_profile_contributes_its_micro_batches():
    profiles = [even_profile(micro_batch=size) for size in (1, 2, 4)]
    found = search_devices(profiles, 2, 8, LIVE)
    assert {(c.stages, c.micro_batch, c.micro_batches) for c in found.candidates} == {
        (1, 1, 4), (1, 2, 2), (1, 4, 1), (2, 1, 8), (2, 2, 4), (2, 4, 2),
    }  # fmt: skip
    assert search_devices(profiles[::-1], 2, 8, LIVE).best.micro_batch == found.best.micro_batch


def test_of_equally_fast_ones_the_smallest_lead_then_the_fewest_stages_then_micro_batches_win():
    # Nothing to send and nothing to average: all use the devices fully.
    found = search_devices([even_profile(micro_batch=size) for size in (1, 2)], 4, 8, LIVE)
    order = [(c.lead, c.stages, c.micro_batches) for c in found.candidates]
    assert len({c.step.seconds for c in found.candidates[:2]}) == 1
    assert order[:2] == [(1, 1, 1), (1, 1, 2)]


def test_a_given_lead_is_the_only_one():
    found = search_devices([even_profile(output=1000)], 4, 8, LIVE, leads=(3,))
    assert {candidate.lead for candidate in found.candidates} == {3}


def test_what_does_not_divide_or_fit_is_left_out_with_its_reason():
    found = search_devices([even_profile(layers=2)], 4, 6, LIVE)
    assert {(item.stages, item.reason) for item in found.left_out} == {
        (1, Reason.BATCH),
        (4, Reason.LAYERS),
    }
    assert {candidate.stages for candidate in found.candidates} == {2}


@pytest.mark.parametrize(
    ("profiles", "devices", "batch", "options", "sentence"),
    [
        ([even_profile()], 0, 8, {}, "--devices is 0"),
        ([even_profile()], 2, 0, {}, "--global-batch is 0"),
        ([even_profile(micro_batch=4)], 4, 6, {}, "4, 8, 16 for .* a multiple .*: 8 would do"),
        ([even_profile(layers=2)], 3, 4, {}, "micro-batch x replicas is 3 .*: 6 would do"),
        ([even_profile(), even_profile(2, micro_batch=2)], 2, 4, {}, "even with 2: give profiles"),
        ([even_profile(), even_profile(model="odd", micro_batch=2)], 2, 4, {}, "of odd with 8"),
        ([even_profile(), even_profile()], 2, 4, {}, "two profiles have a micro-batch of 1"),
        ([even_profile()], 2, 4, {"speeds": (1.0, 1.0)}, "--speeds has one entry per stage"),
        (
            [even_profile()],
            2,
            4,
            {"memory_limit": (1, 1)},
            "--memory-limit has one entry per stage",
        ),
    ],
)
def test_a_request_that_cannot_be_met_is_bad_input(profiles, devices, batch, options, sentence):
    with pytest.raises(InputError, match=sentence):
        search_devices(profiles, devices, batch, PlanOptions(**options))
