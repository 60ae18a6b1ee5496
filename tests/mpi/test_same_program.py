"""Ranks that run other code, or were asked for something else, are refused before they train."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hpc_lpm
from tests.mpi.ranks import MPIRUN

pytestmark = pytest.mark.mpi

PACKAGE = Path(hpc_lpm.__file__).parent
TRAINING = {
    "--model": "own_net:net",
    "--dataset": "digits,size=8",
    "--strategy": "fbp",
    "--steps": "4",
    "--batch-size": "8",
    "--micro-batches": "2",
    "--lr": "0.1",
    "--out": "run",
}
OWN = """
from torch import nn


def net(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.ReLU(), nn.Linear({width}, 10))
"""


@pytest.fixture(scope="module")
def other_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the package with one more line."""
    folder = tmp_path_factory.mktemp("other")
    copy = folder / "hpc_lpm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "engine" / "loop.py").open("a") as stream:
        stream.write("# of another release\n")
    return folder


@pytest.mark.parametrize("differs", ["code", "option", "module", "profiled code"])
def test_a_rank_that_differs_is_named_in_one_sentence(
    tmp_path: Path, other_code: Path, differs: str
) -> None:
    for name, width in (("here", 8), ("there", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own_net.py").write_text(OWN.format(width=width))
    words = [word for pair in TRAINING.items() for word in pair]
    command = ["-m", "mpi4py", "-m", "hpc_lpm", "train", *words]
    if differs == "profiled code":
        profile = {name: TRAINING[name] for name in ("--dataset",)}
        profile |= {"--micro-batch": "4", "--out": "profile.json"}
        given = [word for pair in profile.items() for word in pair]
        command = ["-m", "mpi4py", "-m", "hpc_lpm", "profile", "own_net:net", *given]
    other = list(command)
    if differs == "option":
        other[other.index("0.1")] = "0.2"
    path = other_code if "code" in differs else PACKAGE.parent
    second = tmp_path / ("there" if differs == "module" else "here")
    mpirun = [str(MPIRUN), "--bind-to", "none", "--oversubscribe", "-wdir", str(tmp_path / "here")]
    done = subprocess.run(
        [
            *(*mpirun, "-n", "1", sys.executable, *command, ":"),
            *("-wdir", str(second), "-n", "1", "env", f"PYTHONPATH={path}", sys.executable, *other),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    # mpirun ends some of its own writes with a zero byte.
    lines = done.stderr.replace("\0", "").splitlines()
    said = [line for line in lines if line.startswith("hpc-lpm: ")]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = said
    what = {
        "code": "the code of hpc-lpm",
        "profiled code": "the code of hpc-lpm",
        "option": "--lr",
        "module": "the module own_net",
    }[differs]
    assert sentence.startswith(f"hpc-lpm: {what} is not the same on all ranks: rank 1 on ")
    if differs == "option":
        assert " has 0.2, rank 0 on " in sentence
    elif "code" in differs:
        assert f" in {other_code / 'hpc_lpm'}, rank 0 on " in sentence
    assert not (tmp_path / "here" / "run" / "result.json").exists()
