"""What a run reads that was changed, swapped or is another's: it is refused or passed over."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.checkpoint.store import Manifest
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan
from hpc_lpm.sealed_file import SealedFile
from tests.faults.outcomes import Outcome
from tests.faults.tiny_run import SEED, flip_a_bit, newest_checkpoint, training

STEPS, SAVE_EVERY = 30, 10


def train(folder: Path, out: Path, *options: str) -> int:
    """Train two ranks in one process, whose checkpoints are those of two processes."""
    words = ("train", *training(folder), "--steps", str(STEPS), "--in-one-process")
    saving = ("--checkpoint-steps", str(SAVE_EVERY), "--checkpoint-epochs", "0")
    arguments = [*words, *saving, "--out", str(out), *options]
    return run_guarded(app, arguments, register)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train(folder, folder / "run") == 0
    assert train(folder, folder / "other", "--seed", "1") == 0
    return folder


def flip(newest: Path, _: Path, draw: random.Random) -> None:
    flip_a_bit(draw.choice(sorted(newest.iterdir())), draw)


def cut_off(newest: Path, _: Path, draw: random.Random) -> None:
    path = draw.choice(sorted(newest.iterdir()))
    # More than the end of its last line.
    os.truncate(path, draw.randrange(path.stat().st_size - 1))


def swap(newest: Path, _: Path, draw: random.Random) -> None:
    kind = draw.choice(["*.safetensors", "rank-*.json"])
    first, second = sorted(newest.glob(kind))[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def exchange(newest: Path, other: Path, draw: random.Random) -> None:
    path = draw.choice(sorted(newest.glob("*.safetensors")))
    shutil.copy(newest_checkpoint(other) / path.name, path)


def replace(newest: Path, other: Path, _: random.Random) -> None:
    shutil.rmtree(newest)
    shutil.copytree(newest_checkpoint(other), newest)


BACK = "it is named, and the run goes on from the checkpoint before it"
REFUSED = "refused by one sentence, exit code 2"


@pytest.mark.parametrize(
    ("fault", "damage", "accepted"),
    [
        ("a checkpoint of which a bit was flipped", flip, True),
        ("a checkpoint of which a file is cut off", cut_off, True),
        ("a checkpoint whose files were swapped", swap, True),
        ("a checkpoint with a file of another run", exchange, True),
        ("a checkpoint of another run", replace, False),
    ],
)
def test_a_checkpoint_that_is_not_what_was_saved_is_not_gone_on_from(
    fault: str,
    damage: Callable[[Path, Path, random.Random], None],
    accepted: bool,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = random.Random(f"{SEED} {fault}")
    out = tmp_path / "run"
    whole = json.loads((trained / "run" / "result.json").read_text())
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(trained / "run", out)
        (out / "result.json").unlink()
        newest = newest_checkpoint(out)
        damage(newest, trained / "other", draw)
        capsys.readouterr()
        code = train(trained, out, "--resume")
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        if not accepted:
            (sentence,) = said.err.splitlines()
            assert code == 2
            assert "seed" in sentence
            continue
        assert code == 0, said.err
        assert f"step-{STEPS - SAVE_EVERY}, after step {STEPS - SAVE_EVERY} of" in said.out
        assert newest.name in said.out
        found = json.loads((out / "result.json").read_text())
        assert found["weights_sha256"] == whole["weights_sha256"]
    Outcome(fault, BACK if accepted else REFUSED).record()


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (Plan, "plan.json"),
        (RunResult, "run/result.json"),
        (Manifest, f"run/checkpoint/step-{STEPS}/manifest.json"),
    ],
)
def test_a_file_of_which_a_bit_was_flipped_is_refused(
    kind: type[SealedFile], place: str, trained: Path, tmp_path: Path
) -> None:
    draw, path = random.Random(SEED), trained / place
    sound = kind.read(path)
    refused = 0
    for _ in range(100):
        changed = tmp_path / path.name
        shutil.copy(path, changed)
        flip_a_bit(changed, draw)
        try:
            assert kind.read(changed) == sound  # of a space between words
        except InputError as error:
            refused += 1
            assert str(changed) in str(error)
    assert refused > 60
    outcome = BACK if kind is Manifest else REFUSED
    Outcome(f"a {kind.kind} of which a bit was flipped", outcome).record()
