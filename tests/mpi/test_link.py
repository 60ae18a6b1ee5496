"""Real ranks: the link is measured between neighbours and rank 0 alone writes and prints."""

import json
from pathlib import Path

import pytest

from hpc_lpm.profile_file import Profile
from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi


def test_ranks_profile_together_and_measure_the_link(tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    command = ["-m", "hpc_lpm", "profile", "mlp", "--dataset", "digits", "--micro-batch", "4"]
    done = mpirun(2, *command, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    written = Profile.read(out)
    assert json.loads(done.stdout) == written.model_dump(mode="json")
    assert written.environment["link"] == "measured"
    assert written.environment["ranks"] == 2
    assert len(written.links) == 1
    assert 1e-8 < written.link.latency_seconds < 0.1
    assert 1e6 < written.link.bandwidth_bytes_per_second < 1e12


def test_every_pair_of_neighbours_is_measured_and_all_ranks_know_the_link(tmp_path: Path) -> None:
    program = tmp_path / "links.py"
    program.write_text(
        "from mpi4py import MPI\n"
        "from hpc_lpm.profiling.link import measure_link\n"
        "found = measure_link(MPI.COMM_WORLD)\n"
        "everywhere = MPI.COMM_WORLD.allgather(found)\n"
        "assert len(found.pairs) == 2 and all(other == found for other in everywhere)\n",
        encoding="utf-8",
    )
    done = mpirun(3, str(program))
    assert done.returncode == 0, done.stderr


def test_wrong_input_is_said_once_and_ends_all_ranks_with_code_2(tmp_path: Path) -> None:
    command = ["-m", "hpc_lpm", "profile", "mpl", "--dataset", "digits", "--micro-batch", "4"]
    done = mpirun(2, *command, "--out", str(tmp_path / "profile.json"))
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("hpc-lpm: model 'mpl' is unknown") == 1
