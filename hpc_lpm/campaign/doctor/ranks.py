"""Whether as many ranks came into being as were asked for, each a process of its own."""

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import RankReport, by_host
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "ranks"


def check_ranks(situation: Situation) -> Finding:
    """Judge the number of ranks and their processes."""
    jobs = situation.jobs
    if not jobs:
        return Finding(
            NAME,
            "failed",
            f"no rank reported: {situation.problem or 'the launcher wrote nothing'}",
            "start `mpirun -n 2 hostname` with the mpirun of this Python's environment and mend "
            "what it says, or run `make setup` again",
        )
    return (
        _judge_job(situation)
        or _judge_processes(by_host(jobs[0].ranks))
        or _judge_end(situation)
        or _described(situation)
    )


def _judge_job(situation: Situation) -> Finding | None:
    """Judge if the ranks are one job of the size that was asked for."""
    asked, jobs = situation.ranks_asked, situation.jobs
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
    if not ranks:
        return Finding(
            NAME,
            "failed",
            jobs[0].unfinished,
            "start `mpirun -n 2 hostname` with the same options and mend what it says",
        )
    if len(ranks) != asked:
        return Finding(
            NAME,
            "failed",
            f"{len(ranks)} ranks came, {asked} were asked for",
            f"start {asked} ranks (mpirun -n {asked}) or ask for {len(ranks)} (--ranks)",
        )
    return None


def _judge_processes(hosts: dict[str, list[tuple[int, RankReport]]]) -> Finding | None:
    for host, local in hosts.items():
        if len({rank.pid for _, rank in local}) < len(local):
            return Finding(
                NAME,
                "failed",
                f"ranks on {host} share a process: {', '.join(str(r.pid) for _, r in local)}",
                "start one process a rank: train partitions by process, not by thread",
            )
    return None


def _judge_end(situation: Situation) -> Finding | None:
    """Judge if the ranks came to the end of the probe, and ended."""
    asked, job = situation.ranks_asked, situation.jobs[0]
    if job.unfinished:
        return Finding(
            NAME,
            "failed",
            f"{_counted(len(job.ranks), 'rank')} started, but {job.unfinished}"
            + (f": {situation.problem}" if situation.problem else ""),
            "have that node looked at (its load, mounts and network) or leave it out "
            "(sbatch --exclude), and let Open MPI use a network that joins all nodes "
            "(--mca btl_tcp_if_include)",
        )
    if situation.problem:
        return Finding(
            NAME,
            "warning",
            f"the {asked} ranks came, but did not end well: {situation.problem}",
            "run the doctor once more; if it stays so, start `mpirun -n 2 hostname` by hand",
        )
    return None


def _described(situation: Situation) -> Finding:
    job = situation.jobs[0]
    ranks, hosts = job.ranks, by_host(job.ranks)
    return Finding(
        NAME,
        "ok",
        f"{_counted(len(ranks), 'rank')} in {_counted(len(ranks), 'process', 'processes')} on "
        f"{_counted(len(hosts), 'host')}{_allotted(situation)}, {_first_line(job.library)}",
    )


def _allotted(situation: Situation) -> str:
    job = situation.allocation
    if job is None:
        return ""
    tasks, nodes = _counted(job.tasks, "task"), _counted(job.nodes, "node")
    return f" (Slurm job {job.job}: {tasks}, {nodes})"


def _first_line(library: str) -> str:
    return library.splitlines()[0].split(",")[0].strip() if library.strip() else "unknown MPI"


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
