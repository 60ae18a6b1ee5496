"""Whether as many ranks came into being as were asked for, each a process of its own."""

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import by_host
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "ranks"


def check_ranks(situation: Situation) -> Finding:
    """Judge the number of ranks and their processes."""
    asked, jobs = situation.ranks_asked, situation.jobs
    if not jobs:
        return Finding(
            NAME,
            "failed",
            f"no rank reported: {situation.problem or 'the launcher wrote nothing'}",
            "start `mpirun -n 2 hostname` with the mpirun of this Python's environment and mend "
            "what it says, or run `make setup` again",
        )
    processes = max(situation.processes, len(jobs))
    alone = len(jobs) > 1 or processes > len(jobs[0].ranks) == 1
    if alone:
        return Finding(
            NAME,
            "failed",
            f"{situation.launcher} started {processes} processes that do not know each other: "
            f"each is rank 0 of 1 ({_first_line(jobs[0].library)})",
            "use the launcher of the MPI that mpi4py runs on: the mpirun beside this Python, or "
            "srun --mpi=pmix where Slurm has PMIx",
        )
    ranks = jobs[0].ranks
    if len(ranks) != asked:
        return Finding(
            NAME,
            "failed",
            f"{len(ranks)} ranks came, {asked} were asked for",
            f"start {asked} ranks (mpirun -n {asked}) or ask for {len(ranks)} (--ranks)",
        )
    hosts = by_host(ranks)
    for host, local in hosts.items():
        if len({rank.pid for _, rank in local}) < len(local):
            return Finding(
                NAME,
                "failed",
                f"ranks on {host} share a process: {', '.join(str(r.pid) for _, r in local)}",
                "start one process a rank: train partitions by process, not by thread",
            )
    if situation.problem:
        return Finding(
            NAME,
            "warning",
            f"the {asked} ranks came, but did not end well: {situation.problem}",
            "run the doctor once more; if it stays so, start `mpirun -n 2 hostname` by hand",
        )
    return Finding(
        NAME,
        "ok",
        f"{_counted(len(ranks), 'rank')} in {_counted(len(ranks), 'process', 'processes')} on "
        f"{_counted(len(hosts), 'host')}, {_first_line(jobs[0].library)}",
    )


def _first_line(library: str) -> str:
    return library.splitlines()[0].split(",")[0].strip() if library.strip() else "unknown MPI"


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
