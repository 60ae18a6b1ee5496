"""Ranks without MPI: they exchange what they need outside the steady state through torch's store.

A store of torch.distributed holds values under keys for all ranks. torchrun has one, a script that
initialises torch.distributed makes one, and for ranks of plain srun rank 0 opens one. A message is
a key of its own, made of sender, receiver, tag and number, and is deleted once it was read.
"""

import atexit
import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.engine.job import not_all_came
from hpc_lpm.engine.messages import RefusedMessageError, packed, unpacked
from hpc_lpm.engine.store import open_bound_store
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.host_names import host_names
from hpc_lpm.interfaces import LOOPBACK, interface_of_job
from hpc_lpm.ranks import SRUN_ALONE, Claim

Value = TypeVar("Value")

_PART_BYTES = 4 * 2**20
"""A store takes values of up to 8 MiB."""

_LONGEST_PAUSE_SECONDS = 5e-3
_QUESTIONS_BETWEEN_LOOKS = 20
"""How often a rank asks for a value before it asks if another rank has failed."""

_ASK_AGAIN_SECONDS = 1e-2
"""How long "has not arrived" holds: asking the store takes longer than a tiny forward pass."""

_GOODBYE_SECONDS = 5.0

_FAILED = "hpc-lpm/failed"

_FIRST_PORT, _PORTS = 20_000, 12_000
"""These are below the ports that Linux gives to outgoing connections (32768 and above)."""


class TorchJob:
    """The ranks that torchrun or plain srun started, or that initialised torch.distributed.

    Every collective operation, this one included, raises TrainingError if a rank does not join it
    within `limit_seconds`, or if the rank that keeps the store is gone.
    """

    communicator = None

    def __init__(self, claim: Claim, limit_seconds: float) -> None:
        self.rank, self.size = claim.rank, claim.size
        self.limit_seconds = limit_seconds
        self.store = _store_of_process(claim, limit_seconds)
        # All ranks join the same jobs one after the other.
        self._store: Any = PrefixStore(f"hpc-lpm/{next(_MEMBERSHIP.jobs)}", self.store)
        self._next_tag = 0
        self._gathered = 0
        self._sent: Counter[tuple[int, int]] = Counter()
        self._received: Counter[tuple[int, int]] = Counter()
        self._asked: dict[tuple[int, int], float] = {}
        self.barrier()

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        self.all_gather(None)

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""
        number = self._gathered
        self._gathered += 1
        keys = [f"gather/{number}/{rank}" for rank in range(self.size)]
        try:
            self._put(keys[self.rank], value)
            self._wait(keys)
            values = [self._get(key) for key in keys]
            if number > 0:
                # That all ranks are here means that they have read what was gathered before.
                self._delete(f"gather/{number - 1}/{self.rank}")
        except TimeoutError:
            raise not_all_came(self) from None
        return values

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        return self.all_gather(value if self.rank == 0 else None)[0]

    def once(self, make: Callable[[], Value]) -> Value:
        """Return what `make` makes in this process, which is one rank."""
        return make()

    def own_tag(self) -> int:
        """Return a tag for messages that nothing else uses; every rank calls this alike."""
        self._next_tag += 1
        return self._next_tag

    def send(self, value: Any, rank: int, tag: int) -> None:
        """Send a value to another rank; never wait for that rank."""
        key = f"{self.rank}-{rank}/{tag}/{self._sent[rank, tag]}"
        self._sent[rank, tag] += 1
        self._put(key, value)

    def arrived(self, rank: int, tag: int) -> bool:
        """Tell if a value from this rank can be received; it may be known a moment later."""
        now = time.monotonic()
        if now < self._asked.get((rank, tag), 0.0) + _ASK_AGAIN_SECONDS:
            return False
        found = self._has([self._key_from(rank, tag)])
        if not found:
            self._asked[rank, tag] = now
        return found

    def receive(self, rank: int, tag: int) -> Any:
        """Return the next value that this rank sends; TimeoutError if none comes in time."""
        key = self._key_from(rank, tag)
        self._wait([key])
        self._received[rank, tag] += 1
        value = self._get(key)
        self._delete(key)
        return value

    def _key_from(self, rank: int, tag: int) -> str:
        return f"{rank}-{self.rank}/{tag}/{self._received[rank, tag]}"

    def _put(self, key: str, value: Any) -> None:
        message = packed(value)
        starts = range(0, len(message), _PART_BYTES)
        with _Connection(self):
            for part, start in enumerate(starts):
                self._store.set(f"{key}/{part}", message[start : start + _PART_BYTES])
            # Written last, it says that the others are there.
            self._store.set(key, str(len(starts)))

    def _get(self, key: str) -> Any:
        with _Connection(self):
            parts = range(int(self._store.get(key)))
            message = b"".join(self._store.get(f"{key}/{part}") for part in parts)
        try:
            return unpacked(message)
        except RefusedMessageError as error:
            raise TrainingError(
                f"rank {self.rank} was left a message that it does not read, since {error}: ranks "
                "exchange tensors, numbers, texts and classes of data alone."
            ) from error

    def _delete(self, key: str) -> None:
        with _Connection(self):
            parts = range(int(self._store.get(key)))
            for each in (key, *(f"{key}/{part}" for part in parts)):
                self._store.delete_key(each)

    def _has(self, keys: Sequence[str]) -> bool:
        with _Connection(self):
            return bool(self._store.check(list(keys)))

    def _wait(self, keys: Sequence[str]) -> None:
        # torch's own waiting writes lines about sockets to stderr when its time is over.
        questions = itertools.count(1)

        def there() -> bool:
            if next(questions) % _QUESTIONS_BETWEEN_LOOKS == 0:
                self._end_if_another_failed()
            return self._has(keys)

        if not wait_until(there, self.limit_seconds, _LONGEST_PAUSE_SECONDS):
            raise TimeoutError

    def _end_if_another_failed(self) -> None:
        with _Connection(self):
            if self.store.check([_FAILED]):
                rank = self.store.get(_FAILED).decode()
                raise TrainingError(f"rank {self.rank}: rank {rank} has failed; see what it said.")


class _Connection:
    """Surrounds the use of the store, whose keeper may be gone."""

    def __init__(self, job: TorchJob) -> None:
        self._job = job

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, torch.distributed.DistError):
            # What is written to a broken connection makes torch write pages to stderr.
            _MEMBERSHIP.ended = True
            raise TrainingError(
                f"rank {self._job.rank}: the connection to the store through which the "
                f"{self._job.size} ranks exchange messages is broken: the process that keeps it, "
                "rank 0 or torchrun, was killed or has ended; see what it said."
            ) from error


class _Membership:
    """How this process belongs to a job without MPI, which it joins once.

    It has `ended` once the others know that this rank has failed, or cannot be told any more.
    """

    def __init__(self) -> None:
        self.claim: Claim | None = None
        self.store: Any = None
        self.jobs = itertools.count()
        self.ended = False


_MEMBERSHIP = _Membership()


def has_joined() -> bool:
    """Tell if this process is one of several ranks that share a store."""
    return _MEMBERSHIP.claim is not None and _MEMBERSHIP.claim.size > 1


def all_stop_within(seconds: float) -> bool:
    """Tell the other ranks that this one has stopped, and return if they all do so in time."""
    return _all_say("stopped", seconds)


def tell_failure() -> None:
    """Let ranks that wait for this one know that it will not come."""
    if _MEMBERSHIP.claim is not None and not _MEMBERSHIP.ended:
        _MEMBERSHIP.ended = True
        with suppress(torch.distributed.DistError):
            _MEMBERSHIP.store.set(_FAILED, str(_MEMBERSHIP.claim.rank))


def _store_of_process(claim: Claim, limit_seconds: float) -> Any:
    """Return the store that the ranks share (collective)."""
    if _MEMBERSHIP.claim is None:
        if torch.distributed.is_initialized():
            _MEMBERSHIP.store = torch.distributed.distributed_c10d._get_default_store()
        else:
            _MEMBERSHIP.store = _meet(claim, limit_seconds)
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            atexit.register(_say_goodbye)
        _MEMBERSHIP.claim = claim
    return _MEMBERSHIP.store


def _meet(claim: Claim, limit_seconds: float) -> Any:
    limit = timedelta(seconds=limit_seconds)
    address = "env://" if claim.source != SRUN_ALONE else srun_address()
    try:
        if address != "env://" and claim.rank == 0:
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            return open_bound_store(
                host, int(port), limit, listen_at=_address_behind(host), ranks=claim.size
            )
        store, _, _ = next(rendezvous(address, claim.rank, claim.size, timeout=limit))
    except (torch.distributed.DistError, ValueError, OSError) as error:
        raise _no_meeting(claim, address, limit_seconds, error) from error
    return store


def _address_behind(host: str) -> str | None:
    """Return the address of this node that its name leads the other ranks to, None if unknown."""
    if host == LOOPBACK:
        return LOOPBACK
    interface = interface_of_job()
    with suppress(OSError):
        found = {each[4][0] for each in socket.getaddrinfo(host, None, socket.AF_INET)}
        if interface is not None and interface.address in found:
            return interface.address
    return None


def srun_address(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the ranks of plain srun meet: as torch.distributed takes it.

    It is at MASTER_ADDR and MASTER_PORT if the user has set these, else on the first node of the
    step, at a port that steps of different numbers do not share.
    """
    if {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return "env://"
    numbers = [environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    job, step = (int(number) if number.isdigit() else 0 for number in numbers)
    port = _FIRST_PORT + (job + 1_000 * step) % _PORTS
    one_node = environment.get("SLURM_STEP_NUM_NODES") == "1"
    # A host's own name need not resolve.
    host = LOOPBACK if one_node else host_names(environment.get("SLURM_STEP_NODELIST", ""))[0]
    return f"tcp://{host}:{port}"


def _no_meeting(claim: Claim, address: str, limit_seconds: float, error: Exception) -> Exception:
    where = address.removeprefix("tcp://")
    if address == "env://":
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    reason = " ".join(str(error).split("\n", maxsplit=1)[0].split()).rstrip(".")
    if isinstance(error, ValueError | OSError) or "EADDRINUSE" in str(error):
        return InputError(
            f"rank {claim.rank}: the ranks cannot meet at {where} ({reason}): set MASTER_ADDR to "
            "the host of rank 0 and MASTER_PORT to a free port there."
        )
    return TrainingError(
        f"rank {claim.rank}: not all {claim.size} ranks met at {where} within "
        f"{limit_seconds:g} s ({reason}): one hangs or is gone, or a firewall is between them."
    )


def _say_goodbye() -> None:
    """Keep rank 0, and the store with it, until all ranks have read what they need."""
    if not _MEMBERSHIP.ended:
        keeps_store = _MEMBERSHIP.claim is not None and _MEMBERSHIP.claim.rank == 0
        _all_say("goodbye", _GOODBYE_SECONDS if keeps_store else 0.0)


def _all_say(word: str, seconds: float) -> bool:
    """Say a word to the other ranks, and return if they all do within the time."""
    claim, store = _MEMBERSHIP.claim, _MEMBERSHIP.store
    assert claim is not None
    keys = [f"hpc-lpm/{word}/{rank}" for rank in range(claim.size)]
    deadline = time.monotonic() + seconds
    with suppress(torch.distributed.DistError):
        store.set(keys[claim.rank], "")
        while time.monotonic() < deadline:
            if store.check(keys):
                return True
            time.sleep(_LONGEST_PAUSE_SECONDS)
    return False
