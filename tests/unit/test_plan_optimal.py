"""The planner against every partition there is, priced here from the definitions alone."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_lpm.errors import InputError
from hpc_lpm.planning import dominance
from hpc_lpm.planning.make import make_plan
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.profiling.profile import LayerProfile, Link, LinkProfile, Profile


@dataclass(frozen=True)
class Instance:
    profile: Profile
    stages: int
    options: PlanOptions

    def plan_cuts(self):
        return make_plan(self.profile, "0" * 64, self.stages, "lpm", self.options).cuts


def brute_force(instance):
    """Price every partition by the definitions in Fractions; None if none is feasible."""
    layers, link, options = instance.profile.layers, instance.profile.link, instance.options
    stages, steps = instance.stages, options.micro_batches
    overlap = link.overlap if options.overlap is None else options.overlap
    copies = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}[options.optimizer]
    limits = options.memory_limit
    if not isinstance(limits, tuple):
        limits = (limits,) * stages

    def transfer(cut, sender):
        """Over the boundary behind stage `sender`, counted from 1."""
        if cut in (0, len(layers)):
            return Fraction(0)
        sent = layers[cut - 1].output_bytes
        crossed = options.links[sender - 1] if options.links else link
        return Fraction(crossed.latency_seconds) + Fraction(sent) / Fraction(
            crossed.bandwidth_bytes_per_second
        )

    priced = []
    for inner in combinations(range(1, len(layers)), stages - 1):
        cuts = (0, *inner, len(layers))
        periods, memories, feasible = [], [], True
        for k in range(1, stages + 1):
            held = layers[cuts[k - 1] : cuts[k]]
            delay = options.lead * (stages - k)
            forward = sum((Fraction(x.forward_seconds) for x in held), Fraction(0))
            backward = sum((Fraction(x.backward_seconds) for x in held), Fraction(0))
            work = forward + backward
            if options.weights == "replay":
                work += min(Fraction(1), Fraction(delay, steps)) * forward
            compute = work / Fraction(options.speeds[k - 1] if options.speeds else 1)
            before, after = transfer(cuts[k - 1], k - 1), transfer(cuts[k], k)
            if overlap:
                periods += [compute, before, after]
            else:
                periods.append(compute + 2 * before + 2 * after)
            versions = 0
            if options.weights == "stash":
                versions = delay // steps + (delay % steps > 0)
            memory = (2 + copies + versions) * sum(x.parameter_bytes for x in held)
            memory += (delay + 1) * sum(x.activation_bytes for x in held)
            memories.append(memory)
            feasible &= limits[k - 1] is None or memory <= limits[k - 1]
        if feasible:
            sent = sum(layers[cut - 1].output_bytes for cut in inner)
            priced.append((max(periods), sent, max(memories), cuts))
    if not priced:
        return None
    longest = (1 + Fraction(options.tolerance)) * min(period for period, *_ in priced)
    return min(entry[1:] for entry in priced if entry[0] <= longest)[2]


def layers_of(seconds, size):
    return st.builds(
        LayerProfile,
        name=st.just("layer"),
        forward_seconds=seconds,
        backward_seconds=seconds,
        output_bytes=size,
        parameter_bytes=size,
        activation_bytes=size,
    )


# Few different values make ties; the free floats make sums that doubles cannot hold.
TIED = layers_of(st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.integers(0, 3))
FREE = layers_of(
    st.floats(0, 10, allow_subnormal=False) | st.sampled_from([0.1, 0.2, 0.3]),
    st.integers(0, 1000),
)
HUGE = layers_of(st.floats(0, 1e300), st.integers(0, 2**70))


@st.composite
def instances(draw):
    layers = draw(
        st.one_of(
            st.lists(TIED, min_size=1, max_size=9),
            st.lists(FREE, min_size=1, max_size=9),
            st.lists(HUGE, min_size=1, max_size=5),
        )
    )
    stages = draw(st.integers(1, len(layers)))
    links = st.builds(
        Link,
        latency_seconds=st.sampled_from([0.0, 0.1, 1.0]),
        bandwidth_bytes_per_second=st.sampled_from([0.7, 1.0, 3.0, 1e9]),
    )
    link = LinkProfile(**draw(links).model_dump(), overlap=draw(st.booleans()))
    largest = sum(x.parameter_bytes + x.activation_bytes for x in layers) + 1
    limit = st.integers(1, 2 * largest)
    speed = st.sampled_from([0.5, 1.0, 1.3, 2.0])
    options = PlanOptions(
        tolerance=draw(st.sampled_from([0.0, 0.02, 0.5, 2.0])),
        memory_limit=draw(st.none() | limit | st.tuples(*[limit] * stages)),
        lead=draw(st.integers(1, 3)),
        micro_batches=draw(st.integers(1, 5)),
        weights=draw(st.sampled_from(["replay", "live", "stash"])),
        optimizer=draw(st.sampled_from(["sgd", "momentum", "adam", "adamw"])),
        overlap=draw(st.sampled_from([None, True, False])),
        speeds=draw(st.none() | st.tuples(*[speed] * stages)),
        links=draw(st.none() | st.tuples(*[links] * (stages - 1))),
    )
    profile = Profile(
        model="random", micro_batch=1, device="cpu", dtype="float32", layers=layers, link=link
    )
    return Instance(profile, stages, options)


@pytest.mark.parametrize(
    ("examples", "pairs_at_once"),
    [
        pytest.param(2000, 2**16, id="usual"),
        pytest.param(600, 0, id="as_in_large_instances"),
    ],
)
def test_planner_chooses_the_cuts_that_trying_all_partitions_chooses(
    examples, pairs_at_once, monkeypatch
):
    monkeypatch.setattr(dominance, "_PAIRS_AT_ONCE", pairs_at_once)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(instances())
    def check(instance):
        expected = brute_force(instance)
        if expected is None:
            with pytest.raises(InputError, match="memory limit"):
                instance.plan_cuts()
        else:
            assert instance.plan_cuts() == expected

    check()
