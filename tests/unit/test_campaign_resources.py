import math
from pathlib import Path

import pytest
from campaign_folders import campaign

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.campaign.resources import (
    MEMORY_MARGIN,
    PROCESS_MEGABYTES,
    START_MINUTES,
    TIME_MARGIN,
    UNPROFILED_MEGABYTES,
    UNPROFILED_MINUTES,
    Request,
    check_leaves_time,
    request_of,
)
from hpc_lpm.campaign.sections import Resources
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

MIB = 2**20


def requested(chosen: Campaign, profile: Path | None, plan: Path | None) -> Request:
    settings = contestant_settings(chosen, chosen.contestants[0])
    return request_of(settings, chosen.resources, profile, plan)


def write_profile(folder: Path, **values: object) -> Path:
    layer = LayerProfile(
        name="layer",
        forward_seconds=1.0,
        backward_seconds=2.0,
        output_bytes=1,
        parameter_bytes=100 * MIB,
        activation_bytes=50 * MIB,
    )
    profile = Profile(
        model="m",
        micro_batch=10,
        device="cpu",
        dtype="float32",
        layers=(layer, layer),
        link=LinkProfile(latency_seconds=0, bandwidth_bytes_per_second=1),
        **values,  # type: ignore[arg-type]
    )
    profile.write(folder / "profile.json")
    return folder / "profile.json"


def write_plan(folder: Path) -> Path:
    stages = [
        StagePlan(start=n, stop=n + 1, compute_seconds=1, send_bytes=0, memory_bytes=size)
        for n, size in enumerate((300 * MIB, 700 * MIB))
    ]
    plan = Plan(
        planner="lpm",
        model="m",
        stages=tuple(stages),
        period_seconds=1,
        boundary_bytes=0,
        profile_sha256="",
    )
    plan.write(folder / "plan.json")
    return folder / "plan.json"


def test_memory_is_that_of_the_fullest_stage_and_time_that_of_all_passes(tmp_path: Path) -> None:
    chosen = campaign(epochs=3)
    profile = write_profile(tmp_path, train_samples=1000, test_samples=200)
    found = requested(chosen, profile, write_plan(tmp_path))
    # 3 epochs of 100 micro-batches of 2 + 4 s, and of 20 of 2 s.
    seconds = 3 * (100 * 6 + 20 * 2)
    assert found == Request(
        PROCESS_MEGABYTES + int(700 * MEMORY_MARGIN),
        START_MINUTES + int(TIME_MARGIN * seconds / 60),
    )


def test_a_trial_asks_for_the_time_of_its_validation_and_of_evaluations_within_epochs(
    tmp_path: Path,
) -> None:
    profile = write_profile(tmp_path, train_samples=640, test_samples=64)
    given = {"epochs": 2, "validation": 0.1, "evaluate_every": 3, "batch_size": 16}
    minutes = requested(campaign(**given), profile, None).minutes
    # 576 samples are trained on, 64 validated on: after each epoch, and 24 times within epochs.
    trained, evaluated = 2 * 576, 2 * (64 + 64) + 24 * 64
    assert minutes == START_MINUTES + math.ceil(
        TIME_MARGIN * (trained * 6 + evaluated * 2) / 10 / 60
    )


def test_without_a_plan_a_rank_holds_the_whole_model(tmp_path: Path) -> None:
    chosen = campaign()
    profile = write_profile(tmp_path, train_samples=1000, test_samples=200)
    found = requested(chosen, profile, None)
    assert found.rank_megabytes == PROCESS_MEGABYTES + int(MEMORY_MARGIN * (4 * 200 + 100))


def test_steps_are_counted_like_epochs(tmp_path: Path) -> None:
    chosen = campaign(epochs=None, steps=10, batch_size=100, micro_batches=10)
    profile = write_profile(tmp_path, train_samples=1000, test_samples=200)
    minutes = requested(chosen, profile, None).minutes
    assert minutes == START_MINUTES + int(TIME_MARGIN * (100 * 6 + 20 * 2) / 60)


def test_what_the_campaign_sets_is_what_is_asked_for(tmp_path: Path) -> None:
    chosen = campaign(resources={"memory_megabytes": 123, "runtime_minutes": 45})
    profile = write_profile(tmp_path, train_samples=1000, test_samples=200)
    assert requested(chosen, profile, None) == Request(123, 45)


def test_without_a_profile_or_its_samples_there_is_a_default(tmp_path: Path) -> None:
    chosen = campaign()
    assert requested(chosen, None, None) == Request(UNPROFILED_MEGABYTES, UNPROFILED_MINUTES)
    assert requested(chosen, write_profile(tmp_path), None).minutes == UNPROFILED_MINUTES


def test_files_that_are_still_to_be_made_are_told_apart(tmp_path: Path) -> None:
    chosen = campaign()
    with pytest.raises(FileNotFoundError):
        requested(chosen, tmp_path / "profile.json", None)


def test_the_memory_of_a_rank_is_spread_over_the_cores_of_its_threads() -> None:
    request = Request(rank_megabytes=1001, minutes=1)
    assert request.core_megabytes(1) == 1001
    assert request.core_megabytes(2) == 501


@pytest.mark.parametrize(
    ("minutes", "options", "least"),
    [
        (2, "--signal=B:USR2@120", 3),
        (2, "--nice=1 --signal=B:USR2@120 --mail-type=FAIL", 3),
        (1, "--signal USR2@30", 2),
        (5, "--signal=B:USR2@600", 11),
    ],
)
def test_a_time_limit_that_leaves_no_time_before_the_warning_is_refused(
    minutes: int, options: str, least: int
) -> None:
    with pytest.raises(InputError, match=rf"runtime_minutes is {minutes}, .*: ask for {least} or"):
        check_leaves_time(Resources(runtime_minutes=minutes), options)
    check_leaves_time(Resources(runtime_minutes=least), options)
    check_leaves_time(Resources(runtime_minutes=minutes), "--nice=1")
    check_leaves_time(Resources(), options)
