"""Checks whether as many ranks started as were asked for, and on which nodes they run."""

from hpc_lpm.doctor.probe_report import NumberedRanks, by_host
from hpc_lpm.doctor.situation import Finding, Situation, counted
from hpc_lpm.interfaces import OF_LIBRARIES

_RANKS = "ranks"

NETWORK_REMEDY = f"{OF_LIBRARIES[0]} with its address, {OF_LIBRARIES[1]} with its interface"


def check_ranks(situation: Situation) -> Finding:
    """Check the number of ranks, that each is a process of its own, and that all finished."""
    jobs = situation.jobs
    if not jobs:
        return Finding(
            _RANKS,
            "failed",
            f"no rank reported: {situation.problem or 'the launcher printed nothing'}",
            "run `mpirun -n 2 hostname` with the mpirun of this Python's environment and fix what "
            "it reports, or run `make setup` again",
        )
    return (
        _judge_job(situation)
        or _judge_processes(by_host(jobs[0].ranks))
        or _judge_end(situation)
        or _described(situation)
    )


def _judge_job(situation: Situation) -> Finding | None:
    """Report ranks that are not one MPI job of the size that was asked for."""
    asked, jobs = situation.ranks_asked, situation.jobs
    processes = max(situation.processes, len(jobs))
    alone = len(jobs) > 1 or processes > len(jobs[0].ranks) == 1
    if alone:
        return Finding(
            _RANKS,
            "failed",
            f"{situation.launcher} started {processes} processes that do not know each other: "
            f"each is rank 0 of 1 ({_library_name(jobs[0].library)})",
            "use the launcher that belongs to the MPI library of mpi4py: the mpirun beside this "
            "Python, or srun --mpi=pmix if Slurm has PMIx",
        )
    ranks = jobs[0].ranks
    if not ranks:
        return Finding(
            _RANKS,
            "failed",
            jobs[0].unfinished,
            "run `mpirun -n 2 hostname` with the same options and fix what it reports; if that "
            f"works, name the network that joins the nodes ({NETWORK_REMEDY})",
        )
    if len(ranks) != asked:
        return Finding(
            _RANKS,
            "failed",
            f"{counted(len(ranks), 'rank')} started, but {asked} were asked for",
            f"start {asked} ranks (mpirun -n {asked}) or ask for --ranks {len(ranks)}",
        )
    return None


def _judge_processes(hosts: dict[str, NumberedRanks]) -> Finding | None:
    for host, local in hosts.items():
        if len({rank.pid for _, rank in local}) < len(local):
            return Finding(
                _RANKS,
                "failed",
                f"ranks on {host} share a process; their process ids are "
                f"{', '.join(str(r.pid) for _, r in local)}",
                "start one process per rank: training runs each stage in a process of its own",
            )
    return None


def _judge_end(situation: Situation) -> Finding | None:
    """Report ranks that did not finish the probe, or that ended badly."""
    asked, job = situation.ranks_asked, situation.jobs[0]
    if job.unfinished:
        return Finding(
            _RANKS,
            "failed",
            f"{counted(len(job.ranks), 'rank')} started, but {job.unfinished}"
            + (f": {situation.problem}" if situation.problem else ""),
            "have that node examined (its load, mounts and network) or exclude it "
            "(sbatch --exclude), and have Open MPI use a network that connects all nodes "
            f"({NETWORK_REMEDY})",
        )
    if situation.problem:
        return Finding(
            _RANKS,
            "warning",
            f"all {asked} ranks started and reported, but ended badly: {situation.problem}",
            "run the doctor again; if this persists, run `mpirun -n 2 hostname` by hand",
        )
    return None


def _described(situation: Situation) -> Finding:
    job = situation.jobs[0]
    ranks, hosts = job.ranks, by_host(job.ranks)
    return Finding(
        _RANKS,
        "ok",
        f"{counted(len(ranks), 'rank')} in {counted(len(ranks), 'process', 'processes')} on "
        f"{counted(len(hosts), 'host')}{_allotted(situation)}, {_library_name(job.library)}",
    )


def _allotted(situation: Situation) -> str:
    job = situation.allocation
    if job is None:
        return ""
    tasks, nodes = counted(job.tasks, "task"), counted(job.nodes, "node")
    return f" (Slurm job {job.job}: {tasks}, {nodes})"


def _library_name(library: str) -> str:
    return library.splitlines()[0].split(",")[0].strip() if library.strip() else "unknown MPI"


_PLACEMENT = "placement"

_SHOWN = 8


def check_placement(situation: Situation) -> Finding:
    """Check that every node has ranks, and that those of a node have consecutive numbers.

    Stages that follow each other exchange messages, and should do so within a node where possible.
    """
    job = situation.job
    if job is None:
        return situation.not_examined(_PLACEMENT)
    hosts = by_host(job.ranks)
    shown = _shown(hosts)
    allocation = situation.allocation
    if allocation is not None and len(hosts) < min(allocation.nodes, len(job.ranks)):
        return Finding(
            _PLACEMENT,
            "warning",
            f"job {allocation.job} has {allocation.nodes} nodes, but ranks run on only "
            f"{len(hosts)}: {shown}",
            f"request tasks on every node (sbatch --ntasks-per-node) and start mpirun with "
            f"-n {allocation.tasks} and without --host, or srun with --nodes={allocation.nodes}",
        )
    if allocation is not None and len(hosts) < allocation.nodes:
        return Finding(
            _PLACEMENT,
            "warning",
            f"job {allocation.job} has {allocation.nodes} nodes, but only "
            f"{counted(len(job.ranks), 'rank')} started: {shown}",
            f"start at least one rank per node (--ranks {allocation.tasks}) to examine all nodes",
        )
    apart = [host for host, local in hosts.items() if not _consecutive(local)]
    if apart:
        return Finding(
            _PLACEMENT,
            "warning",
            f"the ranks of {', '.join(apart[:_SHOWN])} are not consecutive ({shown}), so that "
            "successive stages communicate over the network although they could share a node",
            "use mpirun --map-by slot or srun --distribution=block (in a campaign file: "
            "launcher.options)",
        )
    return Finding(_PLACEMENT, "ok", shown)


def _consecutive(local: NumberedRanks) -> bool:
    return local[-1][0] - local[0][0] == len(local) - 1


def _shown(hosts: dict[str, NumberedRanks]) -> str:
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
