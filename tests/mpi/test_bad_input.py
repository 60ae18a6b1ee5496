"""Bad input ends all ranks at once: exit code 2, one sentence that helps, no traceback, no hang."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from hpc_lpm.planning.plan import Plan, PlannedLayer, StagePlan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi

MODEL, DATASET = "mlp,width=8", "digits,size=8"
LAYERS = 4
NAMES = ("hidden1", "hidden2", "hidden3", "output")
ENDED_WITHIN_SECONDS = 120.0
"""A whole command with the start of its ranks on a crowded machine; a hang lasts 600 s."""


def write_plan(
    path: Path,
    layers: int,
    stages: int,
    *,
    names: Sequence[str] = (),
    fingerprints: Sequence[str | None] = (),
) -> Path:
    cuts = [layers * stage // stages for stage in range(stages + 1)]
    entries = tuple(
        StagePlan(start=a, stop=b, compute_seconds=0, send_bytes=0, memory_bytes=0)
        for a, b in pairwise(cuts)
    )
    plan = Plan(
        planner="by hand",
        model=MODEL,
        stages=entries,
        period_seconds=0,
        boundary_bytes=0,
        profile_sha256="",
        layers=tuple(
            PlannedLayer(name=name, fingerprint=fingerprint)
            for name, fingerprint in zip(
                names or (NAMES if fingerprints else ()),
                fingerprints or (None,) * len(names),
                strict=True,
            )
        ),
    )
    plan.write(path)
    return path


def write_profile(path: Path) -> Path:
    layer = LayerProfile(
        name="hidden",
        forward_seconds=1,
        backward_seconds=1,
        output_bytes=1,
        parameter_bytes=1,
        activation_bytes=1,
    )
    Profile(
        model=MODEL,
        micro_batch=4,
        device="cpu",
        dtype="float32",
        layers=(layer,) * LAYERS,
        link=LinkProfile(latency_seconds=1e-6, bandwidth_bytes_per_second=1e9),
        environment={},
    ).write(path)
    return path


def train(*options: str, model: str = MODEL, dataset: str = DATASET) -> list[str]:
    fixed = ["--batch-size", "8", "--micro-batches", "2", "--steps", "1", "--out", "unused"]
    return ["train", "--model", model, "--dataset", dataset, *fixed, *options]


def with_plan(plan: Path, *options: str, model: str = MODEL) -> list[str]:
    return train("--strategy", "fbp", "--plan", str(plan), *options, model=model)


def profile(model: str, dataset: str, micro_batch: str = "4") -> list[str]:
    return ["profile", model, "--dataset", dataset, "--micro-batch", micro_batch, "--out", "unused"]


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each kind of bad input the command and what its sentence must name."""
    good = write_plan(folder / "good.json", LAYERS, 2)
    three = write_plan(folder / "three.json", LAYERS, 3)
    long = write_plan(folder / "long.json", LAYERS + 1, 2)
    other = write_plan(folder / "other.json", LAYERS, 2, names=("a", "b", "c", "d"))
    edited = folder / "edited.json"
    edited.write_text(good.read_text().replace('"planner": "by hand"', '"planner": "lpm"'))
    text, gap, old = folder / "text.json", folder / "gap.json", folder / "old.json"
    text.write_text("stages: 2\n")
    document = json.loads(good.read_text())
    old.write_text(json.dumps({**document, "schema_version": 99}))
    document["stages"][1]["start"] = 3
    gap.write_text(json.dumps(document))
    layers = write_profile(folder / "profile.json")
    empty = folder / "empty"
    empty.mkdir()
    missing = str(folder / "missing.json")
    nope = str(folder / "nope")
    return {
        "unknown model": (train(model="mpl"), ["'mpl'", "did you mean 'mlp'", "resnet20"]),
        "unknown model option": (train(model="mlp,widht=8"), ["widht", "width"]),
        "unknown model to profile": (profile("mpl", DATASET), ["'mpl'", "resnet20"]),
        "unknown strategy": (train("--strategy", "fpb"), ["'fpb'", "did you mean 'fbp'", "gpipe"]),
        "unknown dataset": (train(dataset="digit"), ["'digit'", "digits", "fashion-mnist"]),
        "text that is not there": (train(dataset=f"text:{nope}"), [nope]),
        "text to profile not there": (profile("gpt", f"text:{nope}"), [nope]),
        "images that are not there": (
            train("--data-dir", str(empty), dataset="fashion-mnist"),
            [str(empty), "--data-dir"],
        ),
        "data folder that is not there": (
            train("--data-dir", nope, dataset="fashion-mnist"),
            [nope, "--data-dir"],
        ),
        "indivisible batch": (
            train("--batch-size", "9"),
            ["batch size 9", "not divisible", "2 micro-batches"],
        ),
        "no batch": (train("--batch-size", "0"), ["batch_size", "above 0", "found 0"]),
        "batch beyond the data": (with_plan(good, "--batch-size", "100000"), ["100000"]),
        "micro-batch beyond the data": (profile(MODEL, DATASET, "100000"), ["100000", "1 to"]),
        "unknown optimizer": (
            train("--optimizer", "sdg"),
            ["optimizer", "sgd", "adamw", "did you mean 'sgd'"],
        ),
        "unknown weight policy": (
            with_plan(good, "--weights", "relay"),
            ["weights", "replay", "found 'relay'"],
        ),
        "not a number": (train("--lr", "fast"), ["--lr", "'fast'"]),
        "unknown option": (train("--stratgy", "fbp"), ["--stratgy"]),
        "plan for more ranks": (with_plan(three), ["three.json", "3 stages", "2 ranks"]),
        "plan that is missing": (with_plan(Path(missing)), [missing, "does not exist"]),
        "plan that is a folder": (with_plan(empty), [str(empty), "cannot be read"]),
        "plan that is no JSON": (with_plan(text), ["text.json", "not JSON", "line 1"]),
        "plan of another release": (with_plan(old), ["old.json", "99", "accepted is 1"]),
        "plan with a gap": (with_plan(gap), ["gap.json", "stage 1", "starts at layer 2"]),
        "plan for another model": (with_plan(long), ["long.json", "5 layers", "has 4"]),
        "plan for other layers": (with_plan(other), ["other.json", "layer 0 is a", "profile"]),
        "plan changed by hand": (with_plan(edited), ["edited.json", "was changed", "--cuts 2"]),
        "unknown tracker": (with_plan(good, "--tracker", "board"), ["'board'", "tensorboard"]),
        "tracker that cannot be opened": (
            with_plan(good, "--tracker", "json:loads", "--out", str(folder / "tracked")),
            ["'json:loads'", "raises TypeError", "correct it"],
        ),
        "unknown metric to be patient with": (
            with_plan(good, "--patience-metric", "acuracy"),
            ["'acuracy'", "did you mean 'accuracy'", "accepted are loss, accuracy"],
        ),
        "sequential on two ranks": (train(), ["sequential", "2 ranks", "runs on one"]),
        "horovod that is missing": (
            train("--strategy", "horovod"),
            ["horovod", "not built here", "make setup"],
        ),
        "more stages than layers": (
            ["plan", str(layers), "--stages", "5"],
            ["--stages is 5", "4 layers", "at most 4"],
        ),
        "profile that is missing": (["plan", missing, "--stages", "2"], [missing]),
        "plan given for a profile": (["plan", str(good), "--stages", "2"], ["good.json"]),
        "no such command": (["tran"], ["tran"]),
    }


@pytest.fixture(autouse=True)
def _without_horovod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a Horovod that cannot be imported before the one that may be installed."""
    package = tmp_path / "broken" / "horovod"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not built here')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)


def sentences(written: str) -> list[str]:
    # mpirun ends some of its own writes with a zero byte.
    lines = written.replace("\0", "").splitlines()
    return [line for line in lines if line.startswith("hpc-lpm:")]


def check_helpful(sentence: str, named: Sequence[str]) -> None:
    for part in named:
        assert part in sentence, sentence
    assert sentence.rstrip().endswith((".", ")")), sentence


def test_every_kind_of_bad_input_is_refused_by_all_ranks_in_one_sentence(tmp_path: Path) -> None:
    inputs = bad_inputs(tmp_path)
    (tmp_path / "commands.json").write_text(json.dumps([command for command, _ in inputs.values()]))
    program = str(Path(__file__).with_name("guarded_commands.py"))
    done = mpirun(2, program, str(tmp_path / "commands.json"), str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads((tmp_path / "out.json").read_text())
    problems = []
    for (kind, (_, named)), ranks in zip(inputs.items(), outcomes, strict=True):
        try:
            check_refusal(ranks, named)
        except AssertionError as error:
            problems.append(f"{kind}: {error}")
    assert not problems, "\n".join(problems)


def check_refusal(ranks: list[dict], named: list[str]) -> None:
    assert [rank["code"] for rank in ranks] == [2, 2]
    assert all(rank["met"] for rank in ranks), "a rank has waited in vain for another"
    assert max(rank["seconds"] for rank in ranks) < ENDED_WITHIN_SECONDS
    written = "".join(rank["written"] for rank in ranks)
    assert len(written.splitlines()) == 1, f"not one line: {written!r}"
    assert written == ranks[0]["written"], "another rank than the first spoke"
    assert sentences(written), written
    check_helpful(written, named)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (train("--strategy", "fbp", "--plan", "/no/plan.json"), ["/no/plan.json"]),
        (train("--batch-size", "9"), ["batch size 9"]),
        (profile("mlp", "text:/nope"), ["/nope"]),
        (train("--strategy", "horovod"), ["not built here", "make setup"]),
    ],
    ids=["after MPI started", "before MPI started", "profile", "horovod"],
)
def test_a_command_under_mpirun_ends_with_code_2_and_one_sentence(
    command: list[str], named: list[str]
) -> None:
    done = timed(2, "-m", "hpc_lpm", *command)
    assert done.returncode == 2
    (sentence,) = sentences(done.stdout + done.stderr)
    assert sentences(done.stderr) == [sentence]
    check_helpful(sentence, named)


def test_all_ranks_refuse_a_plan_for_other_layers_than_those_that_one_of_them_builds(
    tmp_path: Path,
) -> None:
    wider = write_plan(
        tmp_path / "wider.json", LAYERS, 2, fingerprints=(None, None, None, "0" * 16)
    )
    done = timed(2, "-m", "hpc_lpm", *with_plan(wider, "--out", str(tmp_path / "run")))
    assert done.returncode == 2
    (sentence,) = sentences(done.stdout + done.stderr)
    assert "rank 1" not in sentence
    remedy = "hpc-lpm plan profile.json --stages 2"
    check_helpful(sentence, ["wider.json", "layer 3 (output)", "other parameters", remedy])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rank_alone_with_its_fault_says_so_and_ends_those_that_wait(moment: str) -> None:
    """The first rank finds nothing wrong and waits for the second, before or in MPI."""
    done = timed(2, str(Path(__file__).with_name("lone_fault.py")), "1", moment, abort_notice=True)
    assert done.returncode == 2
    (sentence,) = sentences(done.stdout + done.stderr)
    check_helpful(sentence, ["rank 1 on ", "p.json cannot be read"])


def timed(
    ranks: int, *arguments: str, abort_notice: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run ranks that are to fail soon and without a traceback."""
    start = time.monotonic()
    done = mpirun(ranks, *arguments, timeout_seconds=2 * ENDED_WITHIN_SECONDS)
    assert time.monotonic() - start < ENDED_WITHIN_SECONDS
    everything = done.stdout + done.stderr
    assert "Traceback" not in everything
    if not abort_notice:
        assert "MPI_ABORT" not in everything
    return done
