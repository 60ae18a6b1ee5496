"""The table of the memory comparison: medians, ratios and copies of the weights."""

from types import SimpleNamespace

from benchmarks.memory import table
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def layer(parameter_bytes: int) -> LayerProfile:
    return LayerProfile(
        name="layer",
        forward_seconds=1,
        backward_seconds=1,
        output_bytes=1,
        parameter_bytes=parameter_bytes,
        activation_bytes=1,
    )


def stage(start: int, stop: int, send_bytes: int) -> StagePlan:
    return StagePlan(
        start=start, stop=stop, compute_seconds=0, send_bytes=send_bytes, memory_bytes=0
    )


def test_a_row_holds_the_median_peak_and_the_copies_that_the_policy_keeps() -> None:
    profile = Profile(
        model="m",
        micro_batch=4,
        device="cpu",
        dtype="float32",
        layers=(layer(10), layer(20), layer(30)),
        link=LinkProfile(latency_seconds=1e-6, bandwidth_bytes_per_second=1e9),
        environment={},
    )
    plan = Plan(
        planner="by hand",
        model="m",
        stages=(stage(0, 2, 7), stage(2, 3, 0)),
        period_seconds=0,
        boundary_bytes=7,
        profile_sha256="",
    )
    results = {
        "fbp stash": [SimpleNamespace(peak_memory_bytes=[peak, 1]) for peak in (90, 50, 60)],
        "deepspeed-1f1b": [SimpleNamespace(peak_memory_bytes=[50, 2])] * 3,
    }
    rows = table(results, profile, plan, micro_batches=4, optimizer_copies=2)
    first, second, rival, _ = rows
    assert [(row.contestant, row.rank) for row in rows[:3]] == [
        ("fbp stash", 0),
        ("fbp stash", 1),
        ("deepspeed-1f1b", 0),
    ]
    assert (first.peak_bytes, first.least_peak_bytes, first.most_peak_bytes) == (60, 50, 90)
    assert first.relative_to_deepspeed == 1.2
    assert (first.weight_bytes, first.gradient_bytes, first.optimizer_bytes) == (30, 30, 60)
    assert (first.stashed_bytes, second.stashed_bytes, rival.stashed_bytes) == (30, 0, 0)
    assert first.boundary_buffer_bytes == second.boundary_buffer_bytes == 3 * 7
