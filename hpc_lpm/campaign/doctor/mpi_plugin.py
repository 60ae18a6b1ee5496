"""Which ways of starting MPI Slurm offers, and whether its srun can start our ranks."""

import os
import re
import sys

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.job_environment import outside_of_ranks
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.programs import Answer, ask, installed

NAME = "mpi plugin"

_TRIAL_SECONDS = 60.0
_SIZE = "from mpi4py import MPI; print('ranks', MPI.COMM_WORLD.size)"
_KEEP_MPIRUN = "keep `mpi: mpirun` as the campaign's launcher"


def check_mpi_plugin(situation: Situation) -> Finding:
    """Judge what srun offers by what the MPI at hand needs and, in a job, by trying it."""
    if not installed("srun"):
        return Finding(NAME, "ok", "no srun on this machine; mpirun starts the ranks")
    offers = ask(["srun", "--mpi=list"])
    if not offers.done:
        return Finding(
            NAME,
            "warning",
            f"srun is installed, but {offers.complaint()}",
            f"mend what the check of slurm says; until then {_KEEP_MPIRUN}",
        )
    offered, default = _types(offers), _default()
    library = situation.jobs[0].library if situation.jobs else "Open MPI"
    needed = "pmix" if "Open MPI" in library else "pmi2"
    found = f"MpiDefault={default or 'unknown'}; srun offers {', '.join(offered) or 'nothing'}"
    if default and default not in {"none", *offered}:
        return Finding(
            NAME,
            "warning",
            f"{found}: the default is not among them, so that every srun fails",
            "export SLURM_MPI_TYPE=none, or have MpiDefault=none set in slurm.conf; "
            f"{_KEEP_MPIRUN}",
        )
    if needed not in offered:
        return Finding(
            NAME,
            "ok",
            f"{found}, but not {needed}, which this MPI needs: srun cannot start our ranks",
            f"{_KEEP_MPIRUN}, which works without; or ask the site for Slurm's {needed} plugin",
        )
    option = "" if default == needed else f" --mpi={needed}"
    if situation.allocation is None:
        return Finding(
            NAME,
            "ok",
            f"{found}: srun{option} may start our ranks, which only a job can try",
        )
    return _try(needed, found, option)


def _try(needed: str, found: str, option: str) -> Finding:
    """Start two ranks by srun in the job at hand and see if they know each other."""
    command = ["srun", "--overlap", "--overcommit", "--nodes=1", "--ntasks=2", f"--mpi={needed}"]
    environment = outside_of_ranks(os.environ)
    program = [sys.executable, "-c", _SIZE]
    answer = ask([*command, *program], environment=environment, seconds=_TRIAL_SECONDS)
    if answer.done and answer.output.count("ranks 2") == 2:
        return Finding(NAME, "ok", f"{found}: srun{option} starts our ranks (tried)")
    why = "its ranks do not know each other" if answer.done else answer.complaint()
    return Finding(
        NAME,
        "warning",
        f"{found}, but a step with --mpi={needed} fails: {why}",
        f"{_KEEP_MPIRUN}; for srun have the library of Slurm's {needed} plugin (libpmix) "
        "installed on all nodes",
    )


def _types(answer: Answer) -> list[str]:
    """Return the names in the list of srun, which old versions write as errors.

    The names stand on lines of their own, or behind `srun: `; versions of PMIx follow a colon.
    """
    names = []
    for line in (answer.output + "\n" + answer.errors).splitlines():
        word = line.removeprefix("srun:").strip()
        if re.fullmatch(r"[a-z][a-z0-9_]*", word):
            names.append(word)
    return sorted(set(names))


def _default() -> str:
    answer = ask(["scontrol", "show", "config"])
    found = re.search(r"^MpiDefault\s*=\s*(\S+)", answer.output, re.MULTILINE)
    return found.group(1) if found else ""
