"""Eight emulated devices on however few cores: real messages, true ratios of time."""

from pathlib import Path
from statistics import median

import pytest

from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

DEVICES = 8
PER_STEP = 4
MICRO_BATCH = 2
MESSAGE_BYTES = 100_000
FORWARD_SECONDS, BACKWARD_SECONDS = 0.004, 0.008


def write_uniform_profile(path: Path) -> None:
    layer = LayerProfile(
        name="part",
        forward_seconds=FORWARD_SECONDS,
        backward_seconds=BACKWARD_SECONDS,
        output_bytes=MESSAGE_BYTES,
        parameter_bytes=4,
        activation_bytes=0,
    )
    Profile(
        model="by hand",
        micro_batch=MICRO_BATCH,
        device="cpu",
        dtype="float32",
        layers=(layer,) * DEVICES,
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    ).write(path)


def steady_step_seconds(outcome: dict) -> float:
    """Seconds of a step without the warm-up at the start and the drain at the end."""
    steps = outcome["step_seconds"]
    edge = len(steps) // 4
    return median(steps[edge:-edge])


def test_emulated_devices_train_as_one_and_fbp_outruns_1f1b(tmp_path: Path) -> None:
    write_uniform_profile(tmp_path / "profile.json")

    def case(strategy: str, steps: int, **more: object) -> dict:
        return {
            "model": f"replay:{tmp_path / 'profile.json'}",
            "dataset": "synthetic,samples=256,features=4,classes=3",
            "strategy": strategy,
            "batch_size": MICRO_BATCH * PER_STEP,
            "micro_batches": PER_STEP,
            "steps": steps,
            "seed": 3,
            **({"cuts": list(range(DEVICES + 1))} if strategy != "sequential" else {}),
            **more,
        }

    alone = train_cases(1, [case("sequential", 1), case("sequential", 3)], tmp_path)
    race = [case("fbp", 16, weights="live"), case("1f1b", 16)]
    fbp, gpipe, *raced = train_cases(
        DEVICES,
        # In turns: others on the machine slow one down more than the other.
        [case("fbp", 1), case("gpipe", 3), *(dict(c) for _ in range(3) for c in race)],
        tmp_path,
    )
    # Until its first update fbp is synchronous.
    assert fbp["weights_sha256"] == alone[0]["weights_sha256"]
    assert gpipe["weights_sha256"] == alone[1]["weights_sha256"]
    assert gpipe["train_loss"] == alone[1]["train_loss"]
    assert alone[0]["weights_sha256"] != alone[1]["weights_sha256"]

    assert raced[0]["bytes_sent"] == [
        MESSAGE_BYTES * PER_STEP * 16 * neighbours for neighbours in (1, *[2] * (DEVICES - 2), 1)
    ]
    device_seconds = PER_STEP * (FORWARD_SECONDS + BACKWARD_SECONDS)
    # No device can be faster than its profile; 1f1b needs (M + K - 1)/M = 2.75 times as long.
    continuous = min(map(steady_step_seconds, raced[::2]))
    flushing = min(map(steady_step_seconds, raced[1::2]))
    assert continuous > 0.95 * device_seconds
    assert flushing > 1.2 * continuous
