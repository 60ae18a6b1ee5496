"""The nodes of the testbed are hosts of their own, and jobs find them as on any cluster."""

import re
import sys
from pathlib import Path

import pytest

from tests.slurm.testbed import Shell

pytestmark = pytest.mark.slurm

PYTHON = sys.executable
MPIRUN = str(Path(PYTHON).parent / "mpirun")
WHO = """
from mpi4py import MPI
import platform
world = MPI.COMM_WORLD
everybody = world.gather((world.rank, world.size, platform.node()))
if world.rank == 0:
    print(everybody)
"""
THROUGHPUT = """
from mpi4py import MPI
import numpy, time
world = MPI.COMM_WORLD
message, times = numpy.zeros(4 << 20, numpy.uint8), []
# As often as it takes until neither side has to wait for its core; 20 times to see a link too fast.
for number in range(300):
    world.Barrier()
    start = time.perf_counter()
    if world.rank == 0:
        world.Send(message, 1)
        world.Recv(message, 1)
    else:
        world.Recv(message, 0)
        world.Send(message, 0)
    times.append(time.perf_counter() - start)
    rate = 2 * 8 * message.nbytes / min(times)
    if world.bcast(number >= 19 and rate > 0.5e9):
        break
if world.rank == 0:
    print(rate)
"""


def test_every_node_has_its_own_name_address_core_and_shared_memory(shell: Shell) -> None:
    script = (
        'touch /dev/shm/$(hostname); echo "$(hostname) $(hostname -i) '
        "$(grep Cpus_allowed_list /proc/self/status | cut -f2) $(ls /dev/shm | tr '\\n' ,)\""
    )
    lines = shell.output("srun", "--mpi=none", "-N2", "bash", "-c", script).splitlines()
    nodes = {line.split()[0]: line.split()[1:] for line in lines}
    assert set(nodes) == {"n1", "n2"}
    (address, core, files), (other_address, other_core, other_files) = nodes["n1"], nodes["n2"]
    assert address != other_address
    # Ranks of earlier tests that were killed may have left something beside these.
    assert {"n1", "n2"} & set(files.split(",")) == {"n1"}
    assert {"n1", "n2"} & set(other_files.split(",")) == {"n2"}
    assert core.isdigit()
    assert other_core.isdigit()


def test_every_node_keeps_the_folders_of_open_mpi_to_itself(shell: Shell) -> None:
    script = 'cd "$PRTE_MCA_prte_tmpdir_base" && touch $(hostname) && sleep 1 && ls n*'
    lines = shell.output("srun", "--mpi=none", "-N2", "bash", "-c", script).splitlines()
    assert sorted(lines) == ["n1", "n2"]
    shell.output("srun", "--mpi=none", "-N2", "bash", "-c", 'rm "$PRTE_MCA_prte_tmpdir_base"/n*')


def test_nodes_know_each_other_by_name(shell: Shell) -> None:
    script = "for node in n1 n2 head; do getent hosts $node; done | wc -l"
    assert shell.output("srun", "--mpi=none", "-n1", "bash", "-c", script).strip() == "3"


def test_the_link_between_nodes_has_the_rate_asked_for(shell: Shell) -> None:
    measured = float(shell.output("srun", "-n2", PYTHON, "-c", THROUGHPUT))
    # TCP's headers take some; a burst at the start lets a little more through.
    assert 0.5e9 < measured < 1.1e9


def test_jobs_find_their_cluster_without_being_told(shell: Shell, cluster_name: str) -> None:
    # The machine's own configuration may be that of another cluster.
    script = "env -u SLURM_CONF scontrol show config | grep ClusterName"
    assert f"= {cluster_name}\n" in shell.output("srun", "--mpi=none", "-n1", "bash", "-c", script)


def test_srun_starts_ranks_that_know_each_other(shell: Shell) -> None:
    found = shell.output("srun", "--mpi=pmix", "--distribution=block", "-n2", PYTHON, "-c", WHO)
    assert found.strip() == "[(0, 2, 'n1'), (1, 2, 'n2')]"


def test_mpirun_starts_ranks_on_the_nodes_of_its_job(shell: Shell) -> None:
    script = shell.folder / "who.sbatch"
    script.write_text(f"#!/bin/bash\n#SBATCH -n2\n{MPIRUN} -n 2 {PYTHON} -c '{WHO}'\n")
    shell.output("sbatch", "--wait", "--output=who.out", str(script))
    said = (shell.folder / "who.out").read_text()
    assert "[(0, 2, 'n1'), (1, 2, 'n2')]" in said


def test_a_campaigns_driver_takes_no_core_that_trains(shell: Shell) -> None:
    options = ("--wait", "--job-name=hpc-lpm-campaign", "--output=driver.out")
    shell.output("sbatch", *options, "--wrap", "hostname")
    assert (shell.folder / "driver.out").read_text().strip() == "head"


def test_nodes_are_idle_in_a_partition_that_is_the_default_one(shell: Shell) -> None:
    listed = shell.output("sinfo", "--noheader", "--format=%P %D %T")
    assert re.search(r"^compute\* 2 idle$", listed, re.MULTILINE)
