"""Whether all nodes see one file system: what each writes, and locks on it."""

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import SharedFiles
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "shared files"

LATE_SECONDS = 5.0
"""Files of other nodes that are seen later than this deserve to be waited for in the campaign."""

_ON_SHARED = (
    "work in a folder on a file system that all nodes mount (`df .` on each tells), not in /tmp "
    "or on a local disk"
)


def check_shared_files(situation: Situation) -> Finding:
    """Judge what every node wrote, saw of the others, and made of their locks."""
    job = situation.job
    if job is None or not job.shared_files:
        return Finding(NAME, "warning", f"not tried: {situation.unmeasured}", "mend the ranks")
    nodes = job.shared_files
    folder = job.shared_folder
    unable = [node for node in nodes if node.problem]
    if unable:
        who = ", ".join(f"{node.host} ({node.problem})" for node in unable)
        return Finding(
            NAME, "failed", f"cannot write what all should see in {folder}: {who}", _ON_SHARED
        )
    blind = [node for node in nodes if node.unseen]
    if blind:
        first = blind[0]
        more = f", and {len(blind) - 1} more nodes miss some" if len(blind) > 1 else ""
        return Finding(
            NAME,
            "failed",
            f"{first.host} did not see the files of {', '.join(first.unseen)} in {folder} within "
            f"{first.waited_seconds:.0f} s{more}",
            _ON_SHARED,
        )
    waited = max(node.waited_seconds for node in nodes)
    if waited > LATE_SECONDS:
        late = max(nodes, key=lambda node: node.waited_seconds)
        return Finding(
            NAME,
            "warning",
            f"{late.host} saw the others' files in {folder} only after {waited:.1f} s",
            "keep latency-wait in slurm/config.v8+.yaml well above that, or mount with a shorter "
            "attribute cache (actimeo)",
        )
    return _judge_locks(nodes, _described(nodes, folder, waited))


def _described(nodes: tuple[SharedFiles, ...], folder: str, waited_seconds: float) -> str:
    if len(nodes) == 1:
        return f"{folder} on one node"
    return (
        f"{len(nodes)} nodes write in {folder} and read each other's files, after "
        f"{waited_seconds:.2f} s at most"
    )


def _judge_locks(nodes: tuple[SharedFiles, ...], found: str) -> Finding:
    without = [node for node in nodes if node.lock_problem]
    if without:
        first = without[0]
        return Finding(
            NAME,
            "warning",
            f"{found}; locks on files do not work on {first.host}: {first.lock_problem}",
            "start one campaign at a time in that folder, and have it mounted with locks (NFS "
            "without nolock, Lustre with flock)",
        )
    locked = all(node.lock_problem is not None for node in nodes)
    what = "locks work" if len(nodes) > 1 else "files can be locked there"
    return Finding(NAME, "ok", f"{found}; {what}" if locked else found)
