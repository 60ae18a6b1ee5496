"""Whether ranks start in the container of slurm/site.yaml: two are started in it, and say hello."""

import json
import os
import shlex
import sys
from pathlib import Path

from hpc_lpm import __version__
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.launchers import rank_command, rank_environment
from hpc_lpm.cluster.site import FILE, MODULES, Site
from hpc_lpm.doctor.probe_start import outside_of_steps
from hpc_lpm.doctor.situation import Situation, Verdict
from hpc_lpm.errors import InputError
from hpc_lpm.programs import Answer, ask, installed

RANKS = 2
START_SECONDS = 120.0
"""How long an image may take to be unpacked and its Python to start."""
WAIT_SECONDS = 60
"""How long a node may take to be free."""

_GREETING = """
import json
from mpi4py import MPI
import hpc_lpm
said = MPI.COMM_WORLD.gather(hpc_lpm.__version__)
if said:
    print("in the container " + json.dumps([said, MPI.Get_library_version().split(",")[0]]))
"""
_MARK = "in the container "
_NO_NODE = "Unable to allocate resources"

# Loads the modules of a job, but leaves its signals alone.
_AS_JOB = 'HPC_LPM_SLURM_JOB_ID="${SLURM_JOB_ID:-}"; . "$0"; exec "$@"'


Complaint = tuple[Verdict, str, str]
"""A verdict, what was found to be wrong, and what to do about it."""


def try_container(container: Container, site: Site, situation: Situation) -> Complaint | None:
    """Start two ranks in the container, on a node of the cluster where there is one.

    Returns None if the ranks said what they should.
    """
    try:
        command = _command(container, site, situation)
    except InputError as error:
        return "failed", str(error).rstrip("."), f"correct container in {FILE}"
    environment = dict(os.environ)
    if situation.allocation is not None:
        environment = outside_of_steps(environment, situation.allocation.nodes)
    environment = rank_environment(environment, 1, container)
    environment[MODULES] = " ".join(site.modules)
    answer = ask(command, environment=environment, seconds=START_SECONDS + WAIT_SECONDS)
    if _NO_NODE in answer.errors:
        return (
            "warning",
            f"the container {container.image} was not tried, since no node was free within "
            f"{WAIT_SECONDS} s",
            "run `hpc-lpm doctor` again, or in a job",
        )
    said = [line for line in answer.output.splitlines() if line.startswith(_MARK)]
    if len(said) != 1 or not answer.done:
        if len(said) > 1:
            return (
                "failed",
                f"the ranks in the container {container.image} do not find each other: its MPI "
                "does not understand the launcher outside",
                "install the same mpi4py and Open MPI in the image as here",
            )
        return _why_none_started(container, answer)
    versions, library = json.loads(said[0].removeprefix(_MARK))
    if set(versions) != {__version__} or len(versions) != RANKS:
        return (
            "failed",
            f"the container {container.image} holds hpc-lpm {', '.join(sorted(set(versions)))} "
            f"with {library}, and here is hpc-lpm {__version__}",
            "install the same version in the image as here",
        )
    return None


def _command(container: Container, site: Site, situation: Situation) -> list[str]:
    mpi = "srun" if container.by_srun else "mpirun"
    # The command of a training run, with a greeting in place of the toolkit.
    *start, _, _ = rank_command([], RANKS, mpi, environment={}, container=container)
    greeting = [*start, "-c", _GREETING]
    here = situation.allocation is not None or not installed("srun")
    asked = [word for key, words in site.as_command().items() if key != "memory" for word in words]
    reserved = [
        *("srun", f"--immediate={WAIT_SECONDS}", "--time=5", "--job-name=hpc-lpm-doctor"),
        *(["--mem-per-cpu=2000"] if site.memory else []),
        *asked,
    ]
    script = situation.folder / "slurm" / "job.sh"
    loaded = ["sh", "-c", _AS_JOB, str(script)] if site.modules and script.exists() else []
    if container.by_srun:
        return greeting if here else [*reserved, *greeting[1:]]
    return [*loaded, *greeting] if here else [*reserved, "--ntasks=1", *loaded, *greeting]


def _why_none_started(container: Container, answer: Answer) -> Complaint:
    """Say why no rank said hello."""
    said = answer.errors + answer.output
    lines = [" ".join(line.split()) for line in said.splitlines() if any(map(str.isalnum, line))]
    if answer.exit_code is None:
        what = "said nothing in time"
    elif missing := next((line for line in lines if "No module named" in line), None):
        what = f"lacks a package ({missing.rpartition(': ')[2]})"
    else:
        program = "srun" if container.by_srun else container.runtime
        told = [line for line in lines if program in line or Path(container.image).name in line]
        what = f"cannot be started ({told[-1] if told else answer.complaint()})"
    return (
        "failed",
        f"the container {container.image} {what}",
        f"correct container in {FILE}; its image is one in which {shlex.quote(container.python)} "
        f"has hpc-lpm {__version__} and the mpi4py and Open MPI of {Path(sys.prefix)}",
    )
