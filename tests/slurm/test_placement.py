"""Where the ranks of a job ran, found out on real nodes."""

import json
import sys

import pytest

from tests.slurm.testbed import REPOSITORY, Shell

pytestmark = pytest.mark.slurm

# As within a step of Snakemake: of the job's own variables its id is what is left, and what
# slurm/job.sh kept before.
FIND = """
import dataclasses, json, os
for name in [name for name in os.environ if name.startswith("SLURM_")]:
    if name not in ("SLURM_JOB_ID", "SLURM_CONF"):
        del os.environ[name]
from hpc_lpm.cluster.allocation import with_allocation
from hpc_lpm.cluster.launchers import rank_environment
from hpc_lpm.cluster.rank_nodes import find_rank_nodes
from hpc_lpm.cluster.slurm import slurm_settings
environment = rank_environment(with_allocation(os.environ), threads=1)
found = find_rank_nodes(2, "{launcher}", None, environment)
document = {{
    "job": found.slurm.model_dump(),
    "nodes": found.nodes,
    "cores": {{machine.host: machine.cores for machine in found.machines}},
    "settings": slurm_settings(),
}}
open("found.json", "w").write(json.dumps(document))
"""


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_every_node_that_trains_tells_its_hardware(shell: Shell, launcher: str) -> None:
    program = shell.folder / "find.py"
    program.write_text(FIND.format(launcher=launcher))
    shell.environment["PYTHONPATH"] = str(REPOSITORY)
    keep = REPOSITORY / "slurm" / "job.sh"
    command = f". '{keep}'; '{sys.executable}' '{program.name}'"
    done = shell.run("sbatch", "--wait", "-n2", "--output=job.out", "--wrap", command)
    assert done.returncode == 0, (shell.folder / "job.out").read_text()
    found = json.loads((shell.folder / "found.json").read_text())
    assert found["nodes"] == ["n1", "n2"]
    assert found["cores"] == {"n1": 1, "n2": 1}
    job = found["job"]
    assert (job["node_list"], job["node_count"], job["tasks"]) == ("n[1-2]", 2, 2)
    assert (job["partition"], job["restarts"]) == ("compute", 0)
    assert found["settings"]["SelectType"] == "select/cons_tres"
