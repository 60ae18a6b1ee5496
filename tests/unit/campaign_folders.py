"""Campaign folders made by hand, so that tables and reports can be checked without training."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.config import Campaign, campaign_from_document
from hpc_lpm.campaign.environment import describe_environment
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.steps import settings_of
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.engine.result import RunResult
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

SPEEDS = {"sequential": 200.0, "deepspeed-1f1b": 260.0, "fbp": 320.0, "horovod": 290.0}
STEPS_AN_EPOCH = 4
TEST_PREDICTIONS = 360
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def campaign(**changes: Any) -> Campaign:
    document = {
        "name": "synthetic",
        "models": ["resnet20"],
        "datasets": ["digits"],
        "strategies": list(SPEEDS),
        "epochs": 3,
        "repeats": 2,
    }
    return campaign_from_document(document | changes, "a test")


def write_folder(root: Path, chosen: Campaign, speed_factor: float = 1.0) -> CampaignFolder:
    """Write a finished campaign; repeat r runs at (1 + r / 100) times the speed of repeat 0."""
    folder = CampaignFolder(root)
    folder.campaign.parent.mkdir(parents=True)
    folder.campaign.write_text(chosen.model_dump_json())
    folder.environment.write_text(json.dumps(describe_environment(chosen)))
    for trial in trials_of(chosen):
        write_run(folder, chosen, trial, speed_factor)
        if trial.planner:
            write_plan(folder, chosen, trial)
    return folder


def write_run(
    folder: CampaignFolder, chosen: Campaign, trial: Trial, speed_factor: float = 1.0
) -> None:
    epochs = trial.length or chosen.epochs or 1
    speed = speed_factor * SPEEDS[trial.strategy] * (1 + trial.repeat / 100)
    seconds = chosen.batch_size / speed
    steps = epochs * STEPS_AN_EPOCH
    accuracies = [0.9 + 0.01 * epoch + 0.001 * trial.repeat for epoch in range(epochs)]
    RunResult(
        strategy=trial.strategy,
        model=trial.model,
        dataset=trial.dataset,
        planner=trial.planner,
        seed=trial.seed,
        ranks=trial.ranks,
        samples_per_second=speed,
        step_seconds=[seconds] * steps,
        training_seconds=seconds * steps,
        idle_share=[0.1] * trial.ranks,
        peak_memory_bytes=[(100 + 10 * rank) * 2**20 for rank in range(trial.ranks)],
        bytes_sent=[0 if trial.ranks == 1 else 2**20 * steps] * trial.ranks,
        train_loss=[2.0 / (step + 1) for step in range(steps)],
        test_accuracy=accuracies,
        test_predictions=TEST_PREDICTIONS,
        weights_sha256=f"{trial.name}-{chosen.epochs}",
        cuts=[0, 2, 4] if trial.planner else [0, 4],
        settings=settings_of(chosen, folder, trial).model_dump(mode="json"),
        environment={},
    ).write(folder.run(trial) / "result.json")
    lines: list[dict[str, object]] = []
    for step in range(steps):
        lines.append({"step": step, "epoch": step // STEPS_AN_EPOCH, "loss": 1, "seconds": seconds})
        if (step + 1) % STEPS_AN_EPOCH == 0:
            epoch = step // STEPS_AN_EPOCH
            lines.append({"epoch": epoch, "test_accuracy": accuracies[epoch]})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder.run(trial) / "metrics.jsonl").write_text(text)
    (folder.run(trial) / "trace.json").write_text(json.dumps({"traceEvents": trace(trial)}))
    Launch(
        command=["mpirun", "-n", str(trial.ranks), "python", "-m", "hpc_lpm", "train"],
        ranks=trial.ranks,
        started=STARTED + timedelta(minutes=trial.number),
        ended=STARTED + timedelta(minutes=trial.number, seconds=30),
        exit_code=0,
    ).write(folder.run(trial) / "launch.json")


def trace(trial: Trial, steps: int = 8, micro_batches: int = 4) -> list[dict[str, object]]:
    """Return 1 ms forwards, 2 ms backwards and 0.5 ms updates, each rank 1 ms after the other."""
    events: list[dict[str, object]] = []
    for rank in range(trial.ranks):
        now = 1000.0 * rank
        for step in range(steps):
            for micro_batch in range(step * micro_batches, (step + 1) * micro_batches):
                for name, duration in (("forward", 1000.0), ("backward", 2000.0)):
                    events.append(event(name, rank, now, duration, micro_batch))
                    now += duration
            events.append(event("update", rank, now, 500.0, 0))
            now += 500.0 + 1000.0
    return events


def event(
    name: str, rank: int, start: float, duration: float, micro_batch: int
) -> dict[str, object]:
    """Return an event of the Chrome trace; times are microseconds."""
    arguments = {"micro_batch": micro_batch}
    return {
        "name": name,
        "ph": "X",
        "pid": 0,
        "tid": rank,
        "ts": start,
        "dur": duration,
        "args": arguments,
    }


def write_plan(folder: CampaignFolder, chosen: Campaign, trial: Trial) -> None:
    layers = tuple(
        LayerProfile(
            name=f"layer{index}",
            forward_seconds=0.001 * (index + 1),
            backward_seconds=0.002 * (index + 1),
            output_bytes=65536 >> index,
            parameter_bytes=1000,
            activation_bytes=70000,
        )
        for index in range(4)
    )
    Profile(
        model=trial.model,
        micro_batch=chosen.micro_batch_size,
        device="cpu",
        dtype="float32",
        layers=layers,
        link=LinkProfile(latency_seconds=1e-5, bandwidth_bytes_per_second=1e9),
    ).write(folder.profile(trial.model, trial.dataset, chosen.micro_batch_size))
    stages = tuple(
        StagePlan(start=start, stop=start + 2, compute_seconds=0.01, send_bytes=0, memory_bytes=1)
        for start in (0, 2)
    )
    Plan(
        planner=trial.planner or "",
        model=trial.model,
        stages=stages,
        period_seconds=0.01,
        boundary_bytes=32768,
        profile_sha256="",
    ).write(folder.plan(trial))
