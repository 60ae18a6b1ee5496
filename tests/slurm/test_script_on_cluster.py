"""Ranks that srun starts without MPI find each other, on several nodes too."""

import json
import sys
from pathlib import Path

import pytest

from tests.slurm.testbed import REPOSITORY, Shell

pytestmark = pytest.mark.slurm

SCRIPT = str(REPOSITORY / "tests" / "mpi" / "launched_script.py")


def test_ranks_of_plain_srun_meet_on_the_first_node(shell: Shell) -> None:
    out = shell.folder / "rank"
    shell.output("srun", "--mpi=none", "-N2", "-n2", sys.executable, SCRIPT, str(out))
    for rank in range(2):
        told = json.loads(Path(f"{out}-{rank}").read_text())
        assert told["environment"] == [told["rank"], told["size"]] == [rank, 2]
        assert told["gathered"] == ["from 0", "from 1"]
        assert told["received"][:4] == [*([n, 1 - rank] for n in range(3)), "later"]
        assert not told["started mpi"]
