"""mpirun, torchrun and no launcher at all tell a script and the commands the same about ranks."""

import json
from pathlib import Path

import pytest

from hpc_lpm.engine.result import RunResult
from tests.mpi.plans import write_plan
from tests.mpi.ranks import PROGRAMS, finished, start_script

pytestmark = pytest.mark.mpi

SCRIPT = str(PROGRAMS / "launched_script.py")


def learned(folder: Path, launcher: str, ranks: int, *own: str) -> list[dict[str, object]]:
    """Run the script on so many ranks and return what each has learned."""
    out = folder / "rank"
    done = finished(start_script(launcher, ranks, SCRIPT, str(out), *own), 240)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(Path(f"{out}-{rank}").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize(
    ("launcher", "own"),
    [("mpirun", ["mpi4py"]), ("mpirun", ["torch"]), ("torchrun", []), ("torchrun", ["torch"])],
)
def test_ranks_find_each_other_whoever_started_them(
    launcher: str, own: list[str], tmp_path: Path
) -> None:
    for rank, told in enumerate(learned(tmp_path, launcher, 2, *own)):
        assert told["rank"] == told["local"] == rank
        assert told["size"] == 2
        assert told["environment"] == [rank, 2]
        assert told["mpi"] is told["started mpi"] is (launcher == "mpirun")
        assert told["gathered"] == ["from 0", "from 1"]
        assert told["broadcast"] == 10 * 2**20
        *messages, refusal = [*told["received"], None][:6]
        assert messages == [*([n, 1 - rank] for n in range(3)), "later", "nothing more"]
        assert told["nothing"] is False
        # Neither shorter than the limit of a second, nor as long as the usual one.
        assert all(1 <= seconds < 120 for seconds in told["waited"])
        if rank == 0:
            assert "rank 0: not all 2 ranks reached a barrier within 1 s" in refusal
        if own == ["torch"]:
            assert told["summed"] == 2


def test_a_script_that_no_launcher_started_is_alone(tmp_path: Path) -> None:
    (told,) = learned(tmp_path, "alone", 1)
    assert told == {
        "rank": 0,
        "size": 1,
        "environment": [0, 1],
        "local": 0,
        "mpi": False,
        "started mpi": False,
        "gathered": ["from 0"],
        "broadcast": 10 * 2**20,
    }


def test_a_training_ends_in_the_same_bits_under_mpirun_and_torchrun(tmp_path: Path) -> None:
    write_plan([0, 2, 4], "mlp", tmp_path / "plan.json")
    found = set()
    for launcher in ("mpirun", "torchrun"):
        command = [
            *("-m", "hpc_lpm", "train", "--model", "mlp,width=8", "--dataset", "digits,size=8"),
            *("--strategy", "fbp", "--batch-size", "32", "--micro-batches", "4", "--steps", "30"),
            *("--plan", str(tmp_path / "plan.json"), "--out", str(tmp_path / launcher)),
        ]
        done = finished(start_script(launcher, 2, *command), 240)
        assert done.returncode == 0, done.stdout + done.stderr
        result = RunResult.read(tmp_path / launcher / "result.json")
        assert result.settings["transport"] == {"mpirun": "mpi", "torchrun": "torch"}[launcher]
        found.add(result.weights_sha256)
    assert len(found) == 1
