"""Which rank runs on which node: stages that follow each other should be neighbours."""

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import RankReport, by_host
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "placement"

_SHOWN = 8


def check_placement(situation: Situation) -> Finding:
    """Judge whether all nodes have ranks, and each node ranks that follow each other."""
    job = situation.job
    if job is None:
        return Finding(NAME, "warning", "not looked at: the ranks did not come", "mend the ranks")
    hosts = by_host(job.ranks)
    shown = _shown(hosts)
    allocation = situation.allocation
    if allocation is not None and len(hosts) < min(allocation.nodes, len(job.ranks)):
        return Finding(
            NAME,
            "warning",
            f"job {allocation.job} has {allocation.nodes} nodes, ranks came on {len(hosts)}: "
            f"{shown}",
            f"ask for tasks on every node (sbatch --ntasks-per-node) and start mpirun with "
            f"-n {allocation.tasks} and without --host, or srun with --nodes={allocation.nodes}",
        )
    if allocation is not None and len(hosts) < allocation.nodes:
        return Finding(
            NAME,
            "warning",
            f"job {allocation.job} has {allocation.nodes} nodes, only {len(job.ranks)} ranks were "
            f"asked for: {shown}",
            f"start the doctor with a rank a node or more (--ranks {allocation.tasks}) to see all",
        )
    apart = [host for host, local in hosts.items() if not _follow_each_other(local)]
    if apart:
        return Finding(
            NAME,
            "warning",
            f"the ranks of {', '.join(apart[:_SHOWN])} do not follow each other ({shown}): "
            "neighbouring stages send over the network although they could be on one node",
            "mpirun --map-by slot, or srun --distribution=block (in a campaign: launcher.options)",
        )
    return Finding(NAME, "ok", shown)


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
