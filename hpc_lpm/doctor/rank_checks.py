"""Whether as many ranks came as were asked for, and on which nodes they run."""

from hpc_lpm.doctor.probe_report import RankReport, by_host
from hpc_lpm.doctor.situation import Finding, Situation

_RANKS = "ranks"


def check_ranks(situation: Situation) -> Finding:
    """Judge the number of ranks and their processes."""
    jobs = situation.jobs
    if not jobs:
        return Finding(
            _RANKS,
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
            _RANKS,
            "failed",
            f"{situation.launcher} started {processes} processes that do not know each other: "
            f"each is rank 0 of 1 ({_first_line(jobs[0].library)})",
            "use the launcher of the MPI that mpi4py runs on: the mpirun beside this Python, or "
            "srun --mpi=pmix where Slurm has PMIx",
        )
    ranks = jobs[0].ranks
    if not ranks:
        return Finding(
            _RANKS,
            "failed",
            jobs[0].unfinished,
            "start `mpirun -n 2 hostname` with the same options and mend what it says",
        )
    if len(ranks) != asked:
        return Finding(
            _RANKS,
            "failed",
            f"{len(ranks)} ranks came, {asked} were asked for",
            f"start {asked} ranks (mpirun -n {asked}) or ask for {len(ranks)} (--ranks)",
        )
    return None


def _judge_processes(hosts: dict[str, list[tuple[int, RankReport]]]) -> Finding | None:
    for host, local in hosts.items():
        if len({rank.pid for _, rank in local}) < len(local):
            return Finding(
                _RANKS,
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
            _RANKS,
            "failed",
            f"{_counted(len(job.ranks), 'rank')} started, but {job.unfinished}"
            + (f": {situation.problem}" if situation.problem else ""),
            "have that node looked at (its load, mounts and network) or leave it out "
            "(sbatch --exclude), and let Open MPI use a network that joins all nodes "
            "(--mca btl_tcp_if_include)",
        )
    if situation.problem:
        return Finding(
            _RANKS,
            "warning",
            f"the {asked} ranks came, but did not end well: {situation.problem}",
            "run the doctor once more; if it stays so, start `mpirun -n 2 hostname` by hand",
        )
    return None


def _described(situation: Situation) -> Finding:
    job = situation.jobs[0]
    ranks, hosts = job.ranks, by_host(job.ranks)
    return Finding(
        _RANKS,
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


_PLACEMENT = "placement"

_SHOWN = 8


def check_placement(situation: Situation) -> Finding:
    """Judge whether all nodes have ranks, and each node ranks that follow each other."""
    job = situation.job
    if job is None:
        return Finding(
            _PLACEMENT, "warning", "not looked at: the ranks did not come", "mend the ranks"
        )
    hosts = by_host(job.ranks)
    shown = _shown(hosts)
    allocation = situation.allocation
    if allocation is not None and len(hosts) < min(allocation.nodes, len(job.ranks)):
        return Finding(
            _PLACEMENT,
            "warning",
            f"job {allocation.job} has {allocation.nodes} nodes, ranks came on {len(hosts)}: "
            f"{shown}",
            f"ask for tasks on every node (sbatch --ntasks-per-node) and start mpirun with "
            f"-n {allocation.tasks} and without --host, or srun with --nodes={allocation.nodes}",
        )
    if allocation is not None and len(hosts) < allocation.nodes:
        return Finding(
            _PLACEMENT,
            "warning",
            f"job {allocation.job} has {allocation.nodes} nodes, only {len(job.ranks)} ranks were "
            f"asked for: {shown}",
            f"start the doctor with a rank a node or more (--ranks {allocation.tasks}) to see all",
        )
    apart = [host for host, local in hosts.items() if not _follow_each_other(local)]
    if apart:
        return Finding(
            _PLACEMENT,
            "warning",
            f"the ranks of {', '.join(apart[:_SHOWN])} do not follow each other ({shown}): "
            "neighbouring stages send over the network although they could be on one node",
            "mpirun --map-by slot, or srun --distribution=block (in a campaign: launcher.options)",
        )
    return Finding(_PLACEMENT, "ok", shown)


def _follow_each_other(local: list[tuple[int, RankReport]]) -> bool:
    return local[-1][0] - local[0][0] == len(local) - 1


def _shown(hosts: dict[str, list[tuple[int, RankReport]]]) -> str:
    texts = [f"{host}: {_numbers([n for n, _ in local])}" for host, local in hosts.items()]
    more = len(texts) - _SHOWN
    return "; ".join(texts[:_SHOWN]) + (f"; and {more} more nodes" if more > 0 else "")


def _numbers(numbers: list[int]) -> str:
    """Return `ranks 0-3` or `ranks 0, 2, 4`."""
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"ranks {numbers[0]}-{numbers[-1]}"
    return f"ranks {', '.join(map(str, numbers[:_SHOWN]))}{', ...' * (len(numbers) > _SHOWN)}"
