"""Whether all nodes share a file system, with files that each writes and locks that all respect."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from hpc_lpm.doctor.bounded_waits import BoundedCollectives, within
from hpc_lpm.doctor.probe_report import SharedFiles
from hpc_lpm.doctor.situation import Finding, Situation

NAME = "shared files"

LATE_SECONDS = 5.0
"""If files of other nodes appear later than this, a campaign has to wait for them."""

_ON_SHARED = (
    "work in a folder on a file system that all nodes mount (compare `df .` on each), not in /tmp "
    "or on a local disk"
)


def check_shared_files(situation: Situation) -> Finding:
    """Check that every node can write, sees the files of all others and respects their locks."""
    job = situation.job
    if job is None or not job.shared_files:
        return situation.not_examined(NAME)
    nodes = job.shared_files
    folder = job.shared_folder
    unable = [node for node in nodes if node.problem]
    if unable:
        who = ", ".join(f"{node.host} ({node.problem})" for node in unable)
        return Finding(
            NAME, "failed", f"{folder} cannot be written by all nodes: {who}", _ON_SHARED
        )
    blind = [node for node in nodes if node.unseen]
    if blind:
        first = blind[0]
        more = f"; {len(blind) - 1} more nodes miss some files" if len(blind) > 1 else ""
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
            "set latency-wait in slurm/config.v8+.yaml well above that, or have the folder mounted "
            "with a shorter attribute cache (actimeo)",
        )
    return _judge_locks(nodes, _described(nodes, folder, waited))


def _described(nodes: tuple[SharedFiles, ...], folder: str, waited_seconds: float) -> str:
    if len(nodes) == 1:
        return f"{folder}, used by one node"
    return (
        f"{len(nodes)} nodes write to {folder} and read each other's files after "
        f"{waited_seconds:.2f} s or less"
    )


def _judge_locks(nodes: tuple[SharedFiles, ...], found: str) -> Finding:
    without = [node for node in nodes if node.lock_problem]
    if without:
        first = without[0]
        return Finding(
            NAME,
            "warning",
            f"{found}; file locks do not work on {first.host}: {first.lock_problem}",
            "nothing need be done: drivers of a campaign keep each other out by signs of life; "
            "with locks (NFS without nolock, Lustre with flock) a driver that was killed is "
            "replaced at once, and not after a minute",
        )
    locked = all(node.lock_problem is not None for node in nodes)
    what = "locks work between them" if len(nodes) > 1 else "files there can be locked"
    return Finding(NAME, "ok", f"{found}; {what}" if locked else found)


SEEN_SECONDS = 20.0
"""How long to wait for files of other nodes: NFS caches the contents of a folder for a while."""

CALL_SECONDS = 20.0
"""How long one call may take: without its file server it would never return."""

_POLL_SECONDS = 0.05
_PURPOSE = "the files that all nodes should see"
_LOCK_FILE = "lock"


def try_shared_files(
    collectives: BoundedCollectives,
    representatives: Sequence[int],
    hosts: Sequence[str],
    folder: Path,
) -> tuple[SharedFiles, ...]:
    """Try out rank 0's `folder` from every node and return the reports of the nodes on rank 0.

    Every rank must call this. Nothing is left in the folder. If rank 0 cannot write there, its
    report is the only one.

    Args:
        collectives: the collective operations of all ranks.
        representatives: one rank of each node, rank 0 first.
        hosts: the host of each rank.
        folder: the folder to try; the one that rank 0 names counts.

    Raises:
        RanksMissingError: if a rank does not take part in time.
    """
    made, problem = _make_folder(folder) if collectives.communicator.rank == 0 else (None, "")
    made, problem = collectives.broadcast((made, problem), _PURPOSE, extra_seconds=CALL_SECONDS)
    if made is None:
        return (SharedFiles(host=hosts[0], problem=problem),)
    try:
        return _write_read_lock(collectives, representatives, hosts, made)
    finally:
        if collectives.communicator.rank == 0:
            with suppress(OSError):
                within(CALL_SECONDS, lambda: shutil.rmtree(made, ignore_errors=True))


def _write_read_lock(
    collectives: BoundedCollectives,
    representatives: Sequence[int],
    hosts: Sequence[str],
    folder: Path,
) -> tuple[SharedFiles, ...]:
    rank = collectives.communicator.rank
    takes_part = rank in representatives
    extra = SEEN_SECONDS + CALL_SECONDS
    problem = _write(folder, rank) if takes_part else ""
    problems = collectives.gather(problem, _PURPOSE, extra_seconds=extra)
    written = [other for other in representatives if problems and not problems[other]]
    written = collectives.broadcast(written, _PURPOSE)
    unseen, waited = _read(folder, written) if rank in written else ([], 0.0)
    lock_problem = _try_lock(collectives, folder, rank in written)
    own = SharedFiles(
        host=hosts[rank],
        problem=problem,
        unseen=tuple(hosts[other] for other in unseen),
        waited_seconds=waited,
        lock_problem=lock_problem,
    )
    reports = collectives.gather(own, _PURPOSE, extra_seconds=extra)
    return tuple(reports[other] for other in representatives) if reports else ()


def _make_folder(folder: Path) -> tuple[Path | None, str]:
    try:
        return Path(
            within(CALL_SECONDS, lambda: tempfile.mkdtemp(prefix=".hpc-lpm-doctor-", dir=folder))
        ), ""
    except OSError as error:
        return None, error.strerror or str(error)


def _write(folder: Path, rank: int) -> str:
    """Write this rank's file; return why this failed, or an empty text."""

    def write() -> None:
        with (folder / str(rank)).open("w", encoding="utf-8") as file:
            file.write(_content(rank, folder))
            file.flush()
            os.fsync(file.fileno())

    try:
        # A folder that another node has just made may also appear late.
        _wait_for(folder.is_dir)
        within(CALL_SECONDS, write)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _read(folder: Path, written: Sequence[int]) -> tuple[list[int], float]:
    """Return the ranks whose files were not seen in time, and the time spent waiting [s]."""
    unseen = list(written)

    def all_seen() -> bool:
        unseen[:] = [rank for rank in unseen if not _has_content(folder, rank)]
        return not unseen

    start = time.perf_counter()
    with suppress(OSError):
        _wait_for(all_seen)
    return list(unseen), time.perf_counter() - start


def _has_content(folder: Path, rank: int) -> bool:
    try:
        return (folder / str(rank)).read_text(encoding="utf-8") == _content(rank, folder)
    except OSError:
        return False


def _content(rank: int, folder: Path) -> str:
    # The folder's name is random, so that no file of another run is taken for this one.
    return f"{folder.name} {rank}\n"


def _wait_for(done: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + SEEN_SECONDS
    while not within(CALL_SECONDS, done) and time.perf_counter() < deadline:
        time.sleep(_POLL_SECONDS)


def _try_lock(collectives: BoundedCollectives, folder: Path, takes_part: bool) -> str | None:
    """Return what is wrong with file locks, an empty text if nothing is, None if not tried.

    While rank 0 holds a lock the others must not get it; once it is released they must. Files stay
    open until all ranks have tried, since closing one may release the lock of its holder.
    """
    rank = collectives.communicator.rank
    file, problem = _lock(folder, fcntl.LOCK_EX) if rank == 0 else (None, "")
    problem = collectives.broadcast(problem, _PURPOSE, extra_seconds=SEEN_SECONDS + CALL_SECONDS)
    if problem:
        return problem if takes_part else None
    try:
        if rank and takes_part:
            file, problem = _lock(folder, fcntl.LOCK_EX)
            if file is not None:
                problem = "two nodes hold the same lock"
            elif problem == _HELD:
                problem = ""
        collectives.gather(problem, _PURPOSE, extra_seconds=CALL_SECONDS)
    finally:
        if file is not None:
            file.close()
    collectives.broadcast(None, _PURPOSE)  # rank 0 has released the lock
    if rank and takes_part and not problem:
        file, problem = _lock(folder, fcntl.LOCK_SH)
        if file is not None:
            file.close()
        elif problem == _HELD:
            problem = "a lock is still held after its holder has released it"
    return problem if takes_part else None


_HELD = "held"


def _lock(folder: Path, kind: int) -> tuple[IO[bytes] | None, str]:
    """Lock the file in `folder`; return it open, or None and the reason."""

    def lock() -> IO[bytes]:
        file = (folder / _LOCK_FILE).open("ab")
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        return file

    try:
        return within(CALL_SECONDS, lock), ""
    except BlockingIOError:
        return None, _HELD
    except OSError as error:
        return None, error.strerror or str(error)
