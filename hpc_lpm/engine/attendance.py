"""Whether all ranks of a script do the same: how many batches each was given, and what it calls."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_lpm.engine.collectives import watching
from hpc_lpm.engine.job import Job
from hpc_lpm.errors import InputError, TrainingError

_SAME = (
    "every rank must call the same methods of the engine in the same order, with the same batches: "
    "let their loaders yield as many batches, of the same sizes"
)
_TRAIN = "train_batch"
_TOLD_CHARACTERS = 200

Whereabouts = tuple[str, int, str]
"""The method of the engine that a rank is in, how many batches it was given before, and the error
that its script handles meanwhile, as where a `finally` closes the engine; "" if there is none.
"""


class Attendance:
    """Compares what the ranks of a script do, without a message a batch.

    A rank tells the others whenever it calls anything but `train_batch`; they look for that once
    they have waited for a moment, since what they wait for may then never come.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tag = job.own_tag()
        self._told: dict[int, deque[Whereabouts]] = {
            rank: deque() for rank in range(job.size) if rank != job.rank
        }
        self._batches = 0

    @contextmanager
    def take_batch(self, samples: int) -> Iterator[None]:
        """Surround the training of one more batch, of so many samples.

        Within it an InputError is raised once a rank turns out to have been given fewer batches.
        """
        self._batches += 1
        own = f"{_TRAIN} with {samples} samples", self._batches, ""
        try:
            with watching(lambda: self._look(own)):
                yield
        except TrainingError:
            # Some waits cannot look around, and end with an error that does not know the reason.
            self._look(own)
            raise

    @contextmanager
    def call(self, call: str) -> Iterator[None]:
        """Surround a call in which ranks wait for each other.

        If it fails while another rank is in another call, an InputError says so.
        """
        try:
            yield
        except TrainingError:
            self._look((call, self._batches, ""))
            raise

    def meet(self, call: str) -> None:
        """Wait until all ranks have made this call after as many batches (collective).

        Raises:
            InputError: if a rank has made another call, or was given more or fewer batches.
            TrainingError: if a rank does not come in time.
        """
        own = call, self._batches, _handled_error()
        for rank in self._told:
            self._job.send(own, rank, self._tag)
        try:
            with watching(lambda: self._look(own)):
                found = self._job.all_gather(own)
        except TrainingError as error:
            raise TrainingError(
                f"rank {self._job.rank} waited in vain for the others in {_in_words(own)}: "
                f"{str(error).rstrip('.')}; {_SAME}."
            ) from error
        for rank, told in self._told.items():
            self._compare(own, rank, found[rank])
            if told:
                told.popleft()
            else:
                self._job.receive(rank, self._tag)

    def _look(self, own: Whereabouts) -> None:
        for rank, told in self._told.items():
            while self._job.arrived(rank, self._tag):
                told.append(self._job.receive(rank, self._tag))
            if told:
                self._compare(own, rank, told[0])

    def _compare(self, own: Whereabouts, rank: int, other: Whereabouts) -> None:
        """Raise an InputError if the other rank is where this one will not come.

        While this rank trains, another may be in a call that this one makes later: after more
        batches, or after this one unless it is about this one.
        """
        comes_later = own[0].startswith(_TRAIN) and (
            other[1] > own[1] or (other[1] == own[1] and not other[0].startswith(_TRAIN))
        )
        if other[:2] != own[:2] and not comes_later:
            raise InputError(
                f"rank {self._job.rank} is in {_in_words(own)}, rank {rank} in "
                f"{_in_words(other)}: {_SAME}."
            )


def _in_words(where: Whereabouts) -> str:
    call, batches, error = where
    handling = f", while its script handles {error}" if error else ""
    if call.startswith(_TRAIN):
        return f"{call}, for batch {batches}{handling}"
    return f"{call} after {batches} batch{'' if batches == 1 else 'es'}{handling}"


def _handled_error() -> str:
    """Return the error that the script handles while it makes this call, in one line.

    Ranks that wait for this one in vain end the script before Python reports that error.
    """
    error = sys.exc_info()[1]
    if error is None:
        return ""
    told = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":. ")
    return told[:_TOLD_CHARACTERS]
