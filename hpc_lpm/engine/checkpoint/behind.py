"""Saves checkpoints behind training: a copy is taken, training goes on, a thread writes the files.

Every rank writes its files into a folder aside, the last of them a mark which says what the others
are. Rank 0's thread waits for the marks of all ranks, writes the manifest, and gives the folder its
name: only then it is a checkpoint, and older ones go. Threads send no messages, since the training
uses MPI meanwhile; where one rank is late to see the mark of another, as on NFS, the ranks tell
each other when they meet the next time.

A rank that cannot write removes the folder aside, which tells the others to give up, and raises the
error at its next step.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from hpc_lpm.engine.checkpoint.copies import HostCopies
from hpc_lpm.engine.checkpoint.own_files import MANIFEST
from hpc_lpm.engine.checkpoint.save import WRITING_ERRORS, RankPart
from hpc_lpm.engine.checkpoint.store import (
    CheckpointFile,
    Manifest,
    aside_of,
    begin_aside,
    give_up,
    publish,
    write_into,
)
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.records import SavingSeconds
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.files import VersionedFile

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.25
"""Between two questions to a file system, which may be asked over a network."""
_LEAVE_SECONDS = 10.0
"""How long a rank that fails for another reason lets a checkpoint become complete."""


class WrittenFiles(VersionedFile):
    """`rank-N.written`: the mark of a rank that has written all its files of a checkpoint."""

    kind: ClassVar[str] = "mark of a rank that has saved"

    files: list[CheckpointFile]


class CheckpointWriter:
    """Saves the checkpoints of one folder, one after the other.

    All ranks call `begin` and `finish` alike. One that waits does so no longer than the job's
    limit.

    Args:
        job: the ranks.
        seconds: counts how long saving takes this rank.
    """

    def __init__(self, job: Job, seconds: SavingSeconds) -> None:
        self._job = job
        self._seconds = seconds
        self._copies = HostCopies()
        self._saving: _Saving | None = None

    def begin(
        self, path: Path, part: RankPart, manifest: Manifest, keep: int, *, behind: bool
    ) -> list[int]:
        """Begin to save a checkpoint under the name `path` (collective).

        Whatever fails on the way, the newest complete checkpoint is left as it is. An earlier one
        must be finished.

        Args:
            path: the folder of the checkpoint, which must not exist yet.
            part: what this rank saves.
            manifest: of the checkpoint, without its files.
            keep: how many checkpoints are left in that folder in the end.
            behind: whether the files are written while training goes on. Else this rank has written
                its own when this returns.

        Returns:
            The ranks that have no memory for a copy, and so have written their files at once.

        Raises:
            TrainingError: on every rank, if the folder cannot be made.
        """
        assert self._saving is None
        start = time.perf_counter()
        saving = _Saving(path, manifest, keep, self._job)

        def prepare() -> bool:
            if self._job.rank == 0:
                begin_aside(path)
            copied = self._copies.taken_of(part.tensors) if behind else None
            saving.take(part, copied)
            return copied is not None

        taken = run_on_every_rank(self._job, prepare, WRITING_ERRORS, saving.failure)
        self._saving = saving
        self._seconds.checkpoints += 1
        self._seconds.copy += time.perf_counter() - start
        self._seconds.wait += saving.start(behind=behind)
        return [rank for rank, has_copied in enumerate(taken) if behind and not has_copied]

    def look(self) -> None:
        """Raise what has failed since, if anything; no rank waits for another.

        Raises:
            TrainingError: if this rank cannot write its files, or rank 0 cannot finish.
        """
        if self._saving is not None:
            self._saving.raise_failure()

    def finish(self) -> None:
        """Wait until the checkpoint that was begun is complete (collective).

        Raises:
            TrainingError: on every rank, if one of them cannot write, or takes too long.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        start = time.perf_counter()
        saving.finish()
        self._seconds.wait += time.perf_counter() - start
        self._seconds.behind += saving.seconds_behind

    def leave(self) -> None:
        """Let a checkpoint become complete if that takes a moment: this rank ends by an error."""
        if self._saving is not None:
            self._saving.leave()


class _Saving:
    """One checkpoint that is being saved, as one rank sees it."""

    def __init__(self, path: Path, manifest: Manifest, keep: int, job: Job) -> None:
        self.seconds_behind = 0.0
        self._path, self._aside = path, aside_of(path)
        self._manifest = manifest
        self._keep = keep
        self._job = job
        self._part: RankPart | None = None
        self._is_copied = False
        self._files: list[CheckpointFile] | None = None
        self._problem: str | None = None
        self._fault: Exception | None = None
        self._is_complete = False
        self._has_written, self._stop_looking = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, part: RankPart, copied: dict[str, Tensor] | None) -> None:
        """Note what this rank has to write, from copies of its tensors if there are some."""
        self._is_copied = copied is not None
        self._part = part if copied is None else replace(part, tensors=copied)

    def start(self, *, behind: bool) -> float:
        """Write this rank's files, in a thread if they are copies; return the seconds it took."""
        start = time.perf_counter()
        if not self._is_copied:
            self._write()
        if behind and (self._is_copied or self._job.rank == 0):
            self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
            self._thread.start()
        return time.perf_counter() - start

    def _run(self) -> None:
        if self._is_copied:
            start = time.perf_counter()
            self._write()
            self.seconds_behind = time.perf_counter() - start
        if self._job.rank == 0 and self._files is not None:
            self._guarded(self._complete_when_all_have_written)

    def _write(self) -> None:
        self._guarded(self._write_part)
        self._part = None
        self._has_written.set()

    def _write_part(self) -> None:
        assert self._part is not None
        files = self._part.write(self._aside, self._job.rank)
        if self._job.rank:
            mark = self._mark_of(self._job.rank)
            write_into(mark.parent, mark.name, WrittenFiles(files=files))
        self._files = files

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run an action in whatever thread; keep what it raises for the rank's own thread."""
        try:
            action()
        except WRITING_ERRORS as error:
            # Where another rank has removed the folder, that rank knows why nothing can be written.
            if self._files is not None or self._aside.exists():
                self._problem = " ".join(str(error).split()).rstrip(".")
                # On a full disk, half a checkpoint must not take the room of what others write.
                give_up(self._path)
        except Exception as error:
            self._fault = error

    def _complete_when_all_have_written(self) -> None:
        found = [self._files]
        for rank in range(1, self._job.size):
            pause = _FIRST_PAUSE_SECONDS
            while (files := self._files_of(rank)) is None:
                if self._stop_looking.wait(pause) or not self._aside.exists():
                    return
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            found.append(files)
        start = time.perf_counter()
        self._complete(found)
        self.seconds_behind += time.perf_counter() - start

    def _files_of(self, rank: int) -> list[CheckpointFile] | None:
        """Return the files that another rank has written, None if its mark is not there yet."""
        with suppress(InputError):  # it may come at this moment
            if self._mark_of(rank).exists():
                return WrittenFiles.read(self._mark_of(rank)).files
        return None

    def _mark_of(self, rank: int) -> Path:
        return self._aside / f"rank-{rank}.written"

    def _complete(self, of_ranks: Sequence[list[CheckpointFile] | None]) -> None:
        for rank in range(1, self._job.size):
            self._mark_of(rank).unlink(missing_ok=True)
        files = [file for of_rank in of_ranks for file in of_rank or []]
        write_into(self._aside, MANIFEST, self._manifest.model_copy(update={"files": files}))
        publish(self._path, self._keep)
        self._is_complete = True

    def failure(self, problem: str, rank: str) -> TrainingError:
        """Return the error to raise if a rank cannot write."""
        return TrainingError(
            f"checkpoint {self._path} cannot be saved{rank}: {problem}: make room, or give an "
            "--out that all ranks can write to; an older checkpoint is left as it was."
        )

    def _failure_of(self, rank: int, problem: str) -> TrainingError:
        return self.failure(problem, f" (rank {rank})" if self._job.size > 1 else "")

    def raise_failure(self) -> None:
        """Raise what this rank's thread has met, if anything."""
        if self._fault is not None:
            raise self._fault
        if self._problem is not None:
            raise self._failure_of(self._job.rank, self._problem)

    def finish(self) -> None:
        """Wait for all ranks, and for the end of it all (collective)."""
        if not self._has_written.wait(self._job.limit_seconds):
            raise self._too_slow()
        if self._fault is not None:
            raise self._fault
        outcomes = self._job.all_gather((self._files, self._problem))
        failed = [(rank, problem) for rank, (_, problem) in enumerate(outcomes) if problem]
        failed += [
            (rank, "its files have vanished")
            for rank, (files, _) in enumerate(outcomes)
            if files is None
        ]
        if self._job.rank == 0:
            self._finish_first([files for files, _ in outcomes], failed)
        failed = self._job.broadcast(failed)
        if failed:
            raise self._failure_of(*failed[0])

    def _finish_first(
        self, of_ranks: list[list[CheckpointFile] | None], failed: list[tuple[int, str]]
    ) -> None:
        """Complete the checkpoint on rank 0, if its thread has not; or note why not in `failed`."""
        self._stop_looking.set()
        if self._thread is not None:
            self._thread.join(self._job.limit_seconds)
            if self._thread.is_alive():
                raise self._too_slow()
        if failed:
            give_up(self._path)
            return
        if not self._is_complete and self._problem is None:
            self._guarded(lambda: self._complete(of_ranks))
        if self._fault is not None:
            raise self._fault
        if self._problem is not None:
            failed.append((0, self._problem))

    def _too_slow(self) -> TrainingError:
        limit = self._job.limit_seconds
        return self._failure_of(
            self._job.rank,
            f"it is not written after {limit:g} s, and the disk is slow or hangs; raise "
            "--receive-timeout if it is only slow",
        )

    def leave(self) -> None:
        """Wait a moment until the checkpoint has got its name, or somebody has given up."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while self._aside.exists() and time.monotonic() < deadline:
            time.sleep(_FIRST_PAUSE_SECONDS)
        self._stop_looking.set()
