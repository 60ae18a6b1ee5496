"""A run that was interrupted and resumed ends in the bits of one that drained there by itself."""

import importlib.util
import json
import random
from pathlib import Path

import pytest

from tests.mpi.ranks import run_in_ranks
from tests.mpi.test_exactness import DATASETS, GPT, MLP, RESNET, cuts_of, reference_sha256

pytestmark = pytest.mark.mpi

MICRO_BATCH = 4
MOMENTUM = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
ADAMW = {"name": "adamw", "lr": 0.01}
MUON = {"name": "muon", "lr": 0.01, "weight_decay": 0.1, "lr_scale": ["*bias=0.5"]}
WITHOUT_STAGES = ("sequential", "horovod", "ddp", "fsdp")
ASKED = ["SIGUSR2", "SIGTERM", "SIGINT", "SIGHUP"]


def run_cases(ranks: int, cases: list[dict], folder: Path) -> list[dict]:
    folder.mkdir(exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    done = run_in_ranks(
        ranks, "resume_cases.py", str(folder / "cases.json"), str(folder / "out.json")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes: list[dict] = json.loads((folder / "out.json").read_text())
    return outcomes


def settings(model: str, strategy: str, stages: int, per_step: int, **more: object) -> dict:
    return {
        "model": model,
        "dataset": DATASETS[model],
        "strategy": strategy,
        "batch_size": MICRO_BATCH * per_step,
        "micro_batches": per_step,
        "steps": 16,
        "seed": 3,
        "receive_timeout_seconds": 60,
        **({"cuts": cuts_of(model, stages)} if strategy not in WITHOUT_STAGES else {}),
        **more,
    }


def interrupted(run: dict, folder: Path, *interrupts: dict) -> list[dict]:
    """The run, interrupted, resumed as often, and once more with its drains but undisturbed."""
    cases = [
        {**run, "folder": str(folder), "interrupt": interrupt, "resume": number > 0}
        for number, interrupt in enumerate(interrupts)
    ]
    cases.append({**run, "folder": str(folder), "resume": True})
    return [*cases, {**run, "folder": str(folder) + "-whole"}]


def run_groups(ranks: int, groups: list[list[dict]], folder: Path) -> list[list[dict]]:
    """Run groups of cases of which the last drains like the one before; return their outcomes."""
    cases: list[dict] = []
    for group in groups:
        cases += [dict(case) for case in group]
        cases[-1]["drain_like"] = len(cases) - 2
    outcomes = iter(run_cases(ranks, cases, folder))
    return [[next(outcomes) for _ in group] for group in groups]


def check_resumed_as_whole(outcomes: list[dict], group: list[dict]) -> None:
    *stopped, resumed, whole = outcomes
    for outcome in stopped:
        assert "checkpoint saved in" in outcome["stopped"], (outcomes, group)
    assert resumed["interruptions"] == len(stopped)
    assert len(resumed["drains"]) >= 1
    for name in ("weights_sha256", "train_loss", "test_accuracy", "drains", "lag_counts"):
        assert resumed[name] == whole[name], (name, group)
    for name in ("peak_in_flight", "bytes_sent"):
        assert resumed[name] == whole[name], (name, group)
    assert len(resumed["step_seconds"]) == len(whole["step_seconds"])


def moments(seed: int, ranks: int, most: int) -> list[dict]:
    """Signals at random moments, to one rank and to all."""
    generator = random.Random(seed)
    return [
        {
            "signal": generator.choice(ASKED),
            "ranks": chosen,
            "instruction": generator.randrange(5, most),
        }
        for chosen in ([generator.randrange(ranks)], list(range(ranks)))
    ]


@pytest.mark.parametrize("stages", [2, 3])
def test_fbp_goes_on_bit_for_bit_and_equals_the_recurrence_with_drains(
    stages: int, tmp_path: Path
) -> None:
    groups = []
    for number, (model, per_step, lead, optimizer, weights) in enumerate(
        [
            (MLP, 1, 1, MOMENTUM, "replay"),
            (MLP, 4, 2, ADAMW, "live"),
            (MLP, 4, 1, ADAMW, "stash"),
            (GPT, 4, 1, ADAMW, "replay"),
            (GPT, 1, 2, MOMENTUM, "stash"),
            (RESNET, 4, 1, MOMENTUM, "replay"),
            (RESNET, 1, 2, MOMENTUM, "live"),
        ]
    ):
        run = settings(
            model, "fbp", stages, per_step, lead=lead, optimizer=optimizer, weights=weights
        )
        alone, together = moments(number, stages, 30 * per_step)
        groups.append(interrupted({**run, "sleep": number % 2 == 0}, tmp_path / str(number), alone))
        if number < 3:
            groups.append(interrupted(run, tmp_path / f"{number}-all", together))
    found = run_groups(stages, groups, tmp_path)
    for group, outcomes in zip(groups, found, strict=True):
        check_resumed_as_whole(outcomes, group)
        if group[0]["optimizer"] == MOMENTUM:
            drains = outcomes[-1]["drains"]
            assert outcomes[-1]["weights_sha256"] == reference_sha256(
                group[0], stages, drains=drains
            ), group[0]


def once(rank: int, step: int, name: str = "SIGUSR2") -> dict:
    return {"signal": name, "ranks": [rank], "step": step}


TIED = "gpt,layers=2,width=16,heads=2,dropout=0.2,tied=true"
DATASETS[TIED] = DATASETS[GPT]


def test_every_strategy_goes_on_bit_for_bit(tmp_path: Path) -> None:
    runs = [
        settings(RESNET, "1f1b", 2, 4),
        settings(GPT, "gpipe", 2, 4, optimizer=ADAMW),
        settings(MLP, "naive", 2, 2, transport="torch"),
        settings(RESNET, "deepspeed-1f1b", 2, 4),
        settings(GPT, "deepspeed-1f1b", 2, 2),
        settings(TIED, "fbp", 2, 4, lead=2, transport="torch"),
        settings(RESNET, "fbp", 2, 4, prediction=True, memory_format="channels_last"),
        settings(
            *(MLP, "fbp", 2, 4),
            clip_norm=0.5,
            lr_discount=True,
            learning_rate={"schedule": "cosine", "warmup_steps": 3},
            optimizer={"name": "NAdam", "lr": 0.01},
        ),
    ]
    if importlib.util.find_spec("horovod"):
        runs.append(settings(RESNET, "horovod", 2, 4))
    runs.append(settings(RESNET, "ddp", 2, 4))
    runs.append(settings(RESNET, "torch-1f1b", 2, 4))
    groups = [
        interrupted(run, tmp_path / str(number), once(number % 2, 3 + number % 4, "SIGTERM"))
        for number, run in enumerate(runs)
    ]
    twice = [once(0, 2), once(1, 4)]
    groups.append(interrupted(settings(GPT, "fbp", 2, 3), tmp_path / "twice", *twice))
    for group, outcomes in zip(groups, run_groups(2, groups, tmp_path), strict=True):
        check_resumed_as_whole(outcomes, group)


def test_muon_and_a_synchronous_head_go_on_bit_for_bit(tmp_path: Path) -> None:
    runs = [
        settings(TIED, "fbp", 2, 4, weights="live", optimizer=MUON),
        settings(RESNET, "1f1b", 2, 4, optimizer=MUON, memory_format="channels_last"),
        settings(MLP, "fbp", 2, 4, synchronous_head="25%", synchronous_tail="5steps"),
        settings(MLP, "fbp", 2, 4, optimizer=ADAMW, recipe="auto"),
    ]
    groups = [
        interrupted(run, tmp_path / str(number), once(number % 2, 3 + number % 4, "SIGTERM"))
        for number, run in enumerate(runs)
    ]
    for group, outcomes in zip(groups, run_groups(2, groups, tmp_path), strict=True):
        check_resumed_as_whole(outcomes, group)


def test_replicas_of_every_stage_go_on_bit_for_bit(tmp_path: Path) -> None:
    runs = [
        settings(RESNET, "fbp", 2, 4, batch_size=2 * MICRO_BATCH * 4),
        settings(TIED, "fbp", 2, 2, batch_size=2 * MICRO_BATCH * 2, optimizer=ADAMW),
        settings(RESNET, "1f1b", 2, 4, batch_size=2 * MICRO_BATCH * 4),
        settings(RESNET, "deepspeed-1f1b", 2, 2, batch_size=2 * MICRO_BATCH * 2),
    ]
    groups = [
        interrupted({**run, "sleep": True}, tmp_path / str(number), once(number, 3))
        for number, run in enumerate(runs)
    ]
    for group, outcomes in zip(groups, run_groups(4, groups, tmp_path), strict=True):
        check_resumed_as_whole(outcomes, group)


def test_one_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    runs = [
        settings(RESNET, "sequential", 1, 4),
        settings(TIED, "sequential", 1, 2, optimizer=ADAMW),
        settings(GPT, "fbp", 1, 2),
    ]
    groups = [
        interrupted(run, tmp_path / str(number), once(0, 3), once(0, 2))
        for number, run in enumerate(runs)
    ]
    # A stage begins a step once it has the next one, so that it stops a step later.
    drains = [[5, 9], [5, 9], [6, 11]]
    found = run_groups(1, groups, tmp_path)
    for group, outcomes, expected in zip(groups, found, drains, strict=True):
        check_resumed_as_whole(outcomes, group)
        # Nothing lags here, so that a drain changes nothing.
        assert outcomes[-1]["drains"] == expected


EPOCHS = {"batch_size": 256, "micro_batches": 4, "steps": None, "epochs": 3}


def test_a_stop_at_the_end_of_an_epoch_is_no_drain_of_its_own(tmp_path: Path) -> None:
    """Six steps an epoch: the signal comes when its end is all that is left to agree on."""
    tail = settings(MLP, "fbp", 2, 4, **EPOCHS, synchronous_tail=1, last_batch="keep")
    cases = [
        {**tail, "folder": str(tmp_path / "run"), "interrupt": once(1, 5)},
        {**tail, "folder": str(tmp_path / "run"), "interrupt": once(1, 6), "resume": True},
        {**tail, "folder": str(tmp_path / "run"), "resume": True},
        {**tail, "folder": str(tmp_path / "whole")},
    ]
    first, second, resumed, whole = run_cases(2, cases, tmp_path)
    assert "after step 6 of 18" in first["stopped"]
    assert "after step 12 of 18" in second["stopped"]
    assert resumed["drains"] == whole["drains"] == []
    assert resumed["test_accuracy"] == whole["test_accuracy"]
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["lag_counts"] == whole["lag_counts"]
