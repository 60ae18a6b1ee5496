"""Whatever fails while training, all ranks end within seconds with one sentence, never a hang."""

import importlib.util
import json
import os
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from hpc_lpm.planning.plan import Plan, StagePlan
from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi

DATA_PARALLEL = ("ddp", "fsdp", "horovod")
ENDED_WITHIN_SECONDS = 120.0
"""A whole command with the start of its ranks on a crowded machine; a hang lasts 600 s."""
LIMIT_SECONDS = 5
"""For which ranks wait here: what they import before they meet takes some of them longer."""
SHORT_LIMIT_SECONDS = 3
"""The same, once all has been imported."""


@pytest.fixture(autouse=True)
def _model_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).with_name("faulty_model.py"), tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def write_plan(folder: Path) -> Path:
    stages = tuple(
        StagePlan(start=a, stop=b, compute_seconds=0, send_bytes=0, memory_bytes=0)
        for a, b in pairwise((0, 2, 4))
    )
    path = folder / "plan.json"
    Plan(
        planner="by hand",
        model="faulty",
        stages=stages,
        period_seconds=0,
        boundary_bytes=0,
        profile_sha256="",
    ).write(path)
    return path


def train(
    folder: Path, fault: str, strategy: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Train a model with that fault in two micro-batches of 4 a step; nothing must be left."""
    command = [
        *("-m", "hpc_lpm", "train", "--model", f"faulty_model:make,fault={fault}"),
        *("--dataset", "digits,size=8", "--strategy", strategy, "--batch-size", "8"),
        *("--micro-batches", "2", "--steps", "20", "--out", str(folder / "run"), *options),
    ]
    if strategy not in DATA_PARALLEL:
        command += ["--plan", str(write_plan(folder))]
    start = time.monotonic()
    done = mpirun(2, *command, timeout_seconds=2 * ENDED_WITHIN_SECONDS)
    assert time.monotonic() - start < ENDED_WITHIN_SECONDS
    assert not left_behind(str(folder))
    return done


def left_behind(marker: str) -> list[psutil.Process]:
    """Return the processes that have `marker` among their arguments and do not end."""
    deadline = time.monotonic() + ENDED_WITHIN_SECONDS
    while (found := processes_with(marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def processes_with(marker: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(marker in argument for argument in process.info["cmdline"] or [])
    ]


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    # mpirun ends some of its own writes with a zero byte.
    lines = (done.stdout + done.stderr).replace("\0", "").splitlines()
    return [line for line in lines if line.startswith("hpc-lpm:")]


THIRD, HEAD = "layer 2 third: ", "layer 3 head: "


PLACES = [
    ("backward", "1f1b", 1, f"micro-batch 3, {THIRD}ValueError: gradient refused: --debug"),
    ("forward", "sequential", 0, f"micro-batch 5, {THIRD}ValueError: an odd pixel: --debug"),
    ("forward", "naive", 1, f"micro-batch 5, {THIRD}ValueError: an odd pixel: --debug"),
    ("nan", "gpipe", 1, f"step 3, micro-batch 6, {THIRD}the loss is nan and its output is the"),
    ("nan", "fbp", 1, f"step 3, micro-batch 6, {THIRD}the loss is nan and its output is the"),
    ("input", "fbp", 0, "micro-batch 1, layer 0 entry: it changes its input in place: a layer"),
    ("kept", "naive", 1, f"micro-batch 0, {HEAD}RuntimeError: one of the variables needed"),
]


def test_a_fault_is_named_with_its_stage_micro_batch_and_layer(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    cases = [
        {
            "model": f"faulty_model:make,fault={fault}",
            "dataset": "digits,size=8",
            # The one on every rank alone, with the fault on both.
            "strategy": "limit" if strategy == "sequential" else strategy,
            "plan": str(plan),
            "batch_size": 8,
            "micro_batches": 2,
            "steps": 20,
            "receive_timeout_seconds": SHORT_LIMIT_SECONDS,
        }
        for fault, strategy, _, _ in PLACES
    ]
    # Ranks wait longer for each other where a strategy is imported: that is over before a fault.
    calm = [
        {**case, "model": "mlp,width=16", "steps": 1, "receive_timeout_seconds": 60}
        for case in {case["strategy"]: case for case in cases}.values()
    ]
    (tmp_path / "cases.json").write_text(json.dumps([*calm, *cases]))
    program = str(Path(__file__).with_name("fault_cases.py"))
    done = mpirun(
        2,
        *(program, str(tmp_path / "cases.json"), str(tmp_path / "out.json")),
        timeout_seconds=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads((tmp_path / "out.json").read_text())
    assert outcomes[: len(calm)] == [["", ""]] * len(calm)
    for (_, strategy, rank, place), messages in zip(PLACES, outcomes[len(calm) :], strict=True):
        where = f"rank {rank}" if strategy == "sequential" else f"stage {rank} (rank {rank})"
        assert messages[rank].startswith(f"{where}, {place}"), messages
        assert messages[rank].endswith("."), messages
        if strategy != "sequential":
            in_vain = f"no word from rank {rank} for {SHORT_LIMIT_SECONDS} s"
            assert in_vain in messages[1 - rank], messages


@pytest.mark.parametrize(
    ("fault", "strategy", "options", "start"),
    [
        (
            "forward",
            "fbp",
            ("--debug",),
            f"stage 1 (rank 1), micro-batch 5, {THIRD}ValueError: an odd pixel: --debug shows",
        ),
        *(
            (
                "forward",
                engine,
                (),
                f"stage 1 (rank 1), micro-batch 5, {THIRD}ValueError: an odd pixel: --debug shows",
            )
            for engine in ("deepspeed-1f1b", "torch-1f1b")
        ),
        *(
            (
                "nan",
                engine,
                (),
                f"stage 1 (rank 1), step 3, micro-batch 6, {THIRD}the loss is nan and",
            )
            for engine in ("deepspeed-1f1b", "torch-1f1b")
        ),
        (
            "probe",
            "fbp",
            (),
            "stage 0 (rank 0), rehearsal of training with 4 samples, layer 1 second: "
            "ValueError: an odd pixel",
        ),
        (
            "stop",
            "fbp",
            ("--receive-timeout", str(LIMIT_SECONDS)),
            f"stage 0 (rank 0), micro-batch 3: no word from rank 1 for {LIMIT_SECONDS} s",
        ),
        (
            "stop",
            "torch-1f1b",
            ("--receive-timeout", str(LIMIT_SECONDS)),
            f"stage 0 (rank 0), step 1: no word from another stage for {LIMIT_SECONDS} s",
        ),
        (
            "stop second",
            "ddp",
            ("--receive-timeout", str(LIMIT_SECONDS)),
            f"rank 0, step 3: no averages over the ranks for {LIMIT_SECONDS} s",
        ),
        (
            "stop second",
            "fsdp",
            ("--receive-timeout", str(LIMIT_SECONDS)),
            f"rank 0, step 3: no shards or averages of the other ranks for {LIMIT_SECONDS} s",
        ),
    ],
)
def test_a_fault_ends_all_ranks_with_one_sentence_and_code_1(
    fault: str, strategy: str, options: tuple[str, ...], start: str, tmp_path: Path
) -> None:
    done = train(tmp_path, fault, strategy, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    (sentence,) = sentences(done)
    assert sentence.startswith(f"hpc-lpm: {start}"), sentence
    assert sentence.endswith("."), sentence
    # The cause is chained, for those who ask.
    assert ("Traceback" in done.stderr) == ("--debug" in options)
    assert ("direct cause" in done.stderr) == ("--debug" in options)


@pytest.mark.parametrize("strategy", DATA_PARALLEL)
def test_replicas_that_all_meet_a_loss_that_is_not_finite_speak_once(
    strategy: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec("horovod") is None and strategy == "horovod":
        pytest.skip("Horovod is not installed here")
    done = train(tmp_path, "nan", strategy)
    assert done.returncode == 1
    (sentence,) = sentences(done)
    # Layers that are sharded over the ranks cannot be run again by one of them.
    place = ": " if strategy == "fsdp" else THIRD
    assert f"{place}the loss is nan" in sentence


@pytest.mark.parametrize(("fault", "how"), [("kill", "signal 9"), ("exit", "exit")])
@pytest.mark.parametrize("strategy", ["fbp", "ddp", "fsdp", "torch-1f1b"])
def test_a_rank_that_dies_takes_all_others_with_it(
    strategy: str, fault: str, how: str, tmp_path: Path
) -> None:
    done = train(tmp_path, fault, strategy)
    assert done.returncode != 0
    assert how in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


def test_messages_longer_or_shorter_than_agreed_are_found() -> None:
    program = str(Path(__file__).with_name("mismatched_messages.py"))
    done = mpirun(2, program, timeout_seconds=ENDED_WITHIN_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line for line in done.stdout.splitlines() if "a tensor from" in line]
    longer, shorter, tiny = found
    assert longer.startswith("200: a tensor from rank 0 has more bytes where 100 were")
    assert shorter.startswith("50000: a tensor from rank 0 has 50000 bytes where 100000 were")
    assert tiny.startswith("2: a tensor from rank 0 has 2 bytes where 100 were")
