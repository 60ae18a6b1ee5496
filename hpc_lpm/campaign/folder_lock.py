"""A lock on a campaign's folder: one process holds it, and it ends with that process.

Where the file system has locks, the kernel keeps them (flock). Where it has none, as some mounts of
Lustre and NFS, a folder that is made inside stands for the lock, and its holder touches a file in
it every few seconds: a holder whose sign of life is old, and who gives no other while one waits for
it, is gone: the clock may have been set meanwhile. Holders that have a lock give signs of life too,
since another node may have mounted the folder without locks.
"""

import atexit
import fcntl
import json
import os
import platform
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import IO, Self

from pydantic import TypeAdapter, ValidationError

from hpc_lpm.programs import beginning_of

SIGNS_SECONDS = 5.0
"""How often a holder gives a sign of life."""
GONE_SECONDS = 60.0
"""How old the last sign of life of a holder is that may be gone."""
_SIGNS_AWAITED = 3
"""For how many signs of life one waits before a holder counts as gone."""

_SIGN = "sign-of-life.json"


class InUseError(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class _Holder:
    """Who holds the lock: `token` is its alone, `began` tells its process from later ones."""

    token: str
    host: str
    process: int
    began: str | None
    locked: bool

    @classmethod
    def here(cls, *, locked: bool) -> Self:
        pid = os.getpid()
        return cls(uuid.uuid4().hex, platform.node(), pid, beginning_of(pid), locked)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        try:
            return TypeAdapter(cls).validate_json((folder / _SIGN).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    @property
    def has_ended(self) -> bool:
        """Whether its process is known to be gone, which can be told on its own host alone."""
        return self.host == platform.node() and beginning_of(self.process) != self.began


class FolderLock:
    """Holds the lock of a folder from when it is made until it is closed.

    Args:
        file: the file in the folder that is locked; it is made if it does not exist.

    Raises:
        InUseError: if another process holds it.
        OSError: if nothing can be written there.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.stream: IO[str] = file.open("a+", encoding="utf-8")
        self._folder = file.with_name(f"{file.name}.held")
        self._closed = threading.Event()
        try:
            self._own = _Holder.here(locked=_lock(self.stream))
            self._make_folder()
        except BaseException:
            self.stream.close()
            raise
        threading.Thread(target=self._give_signs, daemon=True).start()
        atexit.register(self.close)

    def close(self) -> None:
        """Let another process have the lock."""
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self.close)
        if self._is_held():
            rmtree(self._folder, ignore_errors=True)
        self.stream.close()

    def _make_folder(self) -> None:
        """Make the folder that stands for the lock; that of a holder which is gone is removed."""
        before = _Holder.read(self._folder)
        if self._folder.exists():
            if not self._is_gone(before):
                raise InUseError
            self._put_away(before)
        try:
            self._folder.mkdir()
        except FileExistsError:
            raise InUseError from None
        sign = self._folder / _SIGN
        # A reader must not see half of it.
        aside = sign.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(self._own)), encoding="utf-8")
        aside.replace(sign)

    def _is_gone(self, before: _Holder | None) -> bool:
        if before is not None and (before.has_ended or (before.locked and self._own.locked)):
            return True  # of two that lock, the kernel has let this one have the lock
        with suppress(FileNotFoundError):
            last = self._last_sign()
            if 0 <= self._now() - last <= GONE_SECONDS:
                return False
            # It may be a clock that was set: only a sign that does not change is an old one.
            for _ in range(_SIGNS_AWAITED):
                time.sleep(SIGNS_SECONDS)
                if self._last_sign() != last:
                    return False
        return True

    def _last_sign(self) -> float:
        """Return when the holder has given its last sign of life, by the clock of the folder."""
        sign = self._folder / _SIGN
        # What an open file tells is not what a client has kept of it for a while.
        found = os.open(sign if sign.exists() else self._folder, os.O_RDONLY)
        try:
            return os.fstat(found).st_mtime
        finally:
            os.close(found)

    def _now(self) -> float:
        """Return the time by the clock that stamps the files of this folder."""
        probe = self._folder.with_name(f"{self._folder.name}.{self._own.token}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _put_away(self, before: _Holder | None) -> None:
        """Remove the folder of a holder that is gone, unless another process was faster."""
        aside = self._folder.with_name(f"{self._folder.name}.{self._own.token}")
        try:
            self._folder.rename(aside)
        except FileNotFoundError:
            return
        found = _Holder.read(aside)
        if (found and found.token) != (before and before.token):
            with suppress(OSError):
                aside.rename(self._folder)
            raise InUseError
        rmtree(aside, ignore_errors=True)

    def _is_held(self) -> bool:
        found = _Holder.read(self._folder)
        return found is not None and found.token == self._own.token

    def _give_signs(self) -> None:
        while not self._closed.wait(SIGNS_SECONDS):
            try:
                os.utime(self._folder / _SIGN)
                lost = not self._is_held()
            except FileNotFoundError:
                lost = True
            except OSError:
                continue  # a file server that is away for a while
            if lost and not self._closed.is_set():
                where = self._folder.parent
                sys.stderr.write(
                    f"hpc-lpm: another process has taken over {where}: this one ends\n"
                )
                os.kill(os.getpid(), signal.SIGINT)
                return


def _lock(stream: IO[str]) -> bool:
    """Lock a file, and tell whether the file system has locks."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError from None
    except OSError:
        return False
    return True
