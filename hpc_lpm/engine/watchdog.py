"""Who waits for whom, while ranks wait longer than usual: written down before the wait ends a run.

When a wait passes a tenth of its limit, the rank writes to the folder `hang` of its run what it
waits for, what it did last, and where its Python is; and it asks the others for the same. A rank
that is stopped, or whose node is gone, does not answer, and is the one that the others wait for in
the end.
"""

import json
import os
import platform
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import TypeAdapter

from hpc_lpm.documents import parse_json
from hpc_lpm.engine.waits import WAITS, Wait
from hpc_lpm.errors import TrainingError
from hpc_lpm.files import read_text, write_text_atomically

FOLDER = "hang"
_ASKED = "asked"
_OWN = re.compile(r"asked|rank-[0-9]{1,9}\.json|\.rank-[0-9]{1,9}\.json\..*\.tmp")
_SHARE = 0.1
"""The part of the limit after which a wait is written down."""
_LONGEST_PAUSE_SECONDS, _PAUSES = 5.0, 40
"""How often the files of the others are looked for: so often within the limit, or oftener."""
_COMMUNICATING = (
    *("torch.distributed", "torch.nn.parallel", "torch.autograd.graph", "deepspeed.comm"),
    *("horovod.torch", "horovod.common", "hpc_lpm.engine.job"),
)
"""Modules that call what waits for other ranks in a library, and compute nothing."""


@dataclass(frozen=True)
class RankReport:
    """What a rank does, while some rank waits longer than usual.

    Attributes:
        rank: its number.
        host: its node.
        process: its process there.
        written: when, by the clock of its node.
        doing: the last instruction that it has ended, with its micro-batch and step.
        waiting: whether it waits for another rank.
        waits_for: that rank, None if it does not wait or waits for all.
        waited_seconds: for how long.
        stack: where the Python of its main thread is, innermost last.
    """

    rank: int
    host: str
    process: int
    written: str
    doing: str
    waiting: bool
    waits_for: int | None
    waited_seconds: float
    stack: list[str]


class Watchdog:
    """Writes this rank's reports in a thread of its own.

    Args:
        folder: of the run.
        rank: of this process.
        ranks: how many there are.
        limit_seconds: how long a rank waits for another one.
        doing: says what the rank has done last.
    """

    def __init__(
        self, folder: Path, rank: int, ranks: int, limit_seconds: float, doing: Callable[[], str]
    ) -> None:
        self._folder = folder / FOLDER
        self._rank, self._ranks = rank, ranks
        self._limit_seconds, self._doing = limit_seconds, doing
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, limit_seconds / _PAUSES)
        self._stop = threading.Event()
        self._main = threading.main_thread().ident
        self._reported: float | None = None
        self._answered = 0.0
        self._earlier: dict[Path, int] = {}
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(2 * self._pause_seconds)

    def blame(self) -> str | None:
        """Say which rank all wait for.

        None if this one does not wait, or not for long, or if what ranks answer cannot be written.
        """
        wait = WAITS.current
        if wait is None or self._reported is None:
            return None
        # A call of a library may fail for another reason than that it has waited.
        if wait.in_library and wait.since != self._reported:
            return None
        time.sleep(3 * self._pause_seconds)  # what others wait for may only just have been asked
        found = {report["rank"]: report for report in self._reports()}
        if self._rank not in found:
            return None
        return f"{_blame(found, self._rank, self._ranks)}; {self._folder} says what each rank did."

    def _watch(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            wait = WAITS.current
            with suppress(OSError):
                if wait is not None and self._is_long(wait) and wait.since != self._reported:
                    self._reported = wait.since
                    self._ask()
                elif (asked := self._asked()) != self._answered:  # a clock may be set back
                    self._answered = asked
                    self._write()

    def _is_long(self, wait: Wait) -> bool:
        is_long = time.perf_counter() - wait.since > _SHARE * self._limit_seconds
        return is_long and _waits(wait, self._frame())

    def _frame(self) -> FrameType | None:
        """Return where the main thread is."""
        return sys._current_frames().get(self._main or 0)

    def _ask(self) -> None:
        """Write down what this rank does, and ask the others, whose earlier answers are over."""
        self._earlier = {path: path.stat().st_mtime_ns for path in self._files()}
        self._write()
        (self._folder / _ASKED).touch()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("rank-*.json"))

    def _asked(self) -> float:
        """Return when a rank has last asked what the others do, 0 if none has."""
        try:
            return (self._folder / _ASKED).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _write(self) -> None:
        frame = self._frame()
        wait = WAITS.current if _waits(WAITS.current, frame) else None
        report = RankReport(
            rank=self._rank,
            host=platform.node(),
            process=os.getpid(),
            written=datetime.now(UTC).isoformat(timespec="milliseconds"),
            doing=self._doing(),
            waiting=wait is not None,
            waits_for=wait.peer if wait else None,
            waited_seconds=round(time.perf_counter() - wait.since, 3) if wait else 0.0,
            stack=[line.rstrip("\n") for line in traceback.format_stack(frame)] if frame else [],
        )
        text = json.dumps(asdict(report), indent=2) + "\n"
        write_text_atomically(self._folder / f"rank-{self._rank}.json", text)

    def _reports(self) -> Iterator[dict[str, Any]]:
        for path in self._files():
            with suppress(OSError, ValueError):
                if path.stat().st_mtime_ns == self._earlier.get(path):
                    continue  # an answer to an earlier question
                report = parse_json(read_text(path))
                yield asdict(TypeAdapter(RankReport).validate_python(report))


def _waits(wait: Wait | None, frame: FrameType | None) -> bool:
    """Tell if a rank waits; in the call of a library it does where it does not compute."""
    if wait is None or not wait.in_library or frame is None:
        return wait is not None
    module = str(frame.f_globals.get("__name__"))
    return any(module == name or module.startswith(f"{name}.") for name in _COMMUNICATING)


def _blame(found: dict[int, dict[str, Any]], rank: int, ranks: int) -> str:
    """Follow who waits for whom, from one rank to the one that does not wait."""
    passed = [rank]
    while (report := found.get(passed[-1])) is not None and report["waiting"]:
        following = report["waits_for"]
        if following is None:  # at a barrier
            silent = [other for other in range(ranks) if other not in found]
            busy = [other for other, each in found.items() if not each["waiting"]]
            following = next(iter([*silent, *busy]), None)
        if following is None:
            return "all ranks wait, none is busy"
        if following in passed:
            circle = passed[passed.index(following) :]
            return f"ranks {', '.join(map(str, circle))} wait for each other in a circle"
        passed.append(following)
    last = passed[-1]
    if report is None:
        return (
            f"all wait for rank {last}, which gives no answer: it was stopped or killed, or its "
            "node is gone"
        )
    where = f" on {report['host']}, process {report['process']}"
    return f"all wait for rank {last}{where}, which does not wait itself: {report['doing']}"


def is_own_report(path: Path) -> bool:
    """Tell if an entry of the folder `hang` is what a rank has written there."""
    return _OWN.fullmatch(path.name) is not None and not path.is_dir()


def _remove_reports(folder: Path) -> None:
    """Remove what ranks of an earlier run have written, and the folder if nothing else is in it."""
    with suppress(OSError):
        for path in folder.iterdir():
            if is_own_report(path):
                path.unlink(missing_ok=True)
        folder.rmdir()


@contextmanager
def watched(
    folder: Path, rank: int, ranks: int, limit_seconds: float, doing: Callable[[], str]
) -> Iterator[None]:
    """Surround the training of a rank; the error of a wait in vain then says who is waited for."""
    if ranks == 1:
        yield
        return
    if rank == 0:
        _remove_reports(folder / FOLDER)
    watchdog = Watchdog(folder, rank, ranks, limit_seconds, doing)
    WAITS.watchdog = watchdog.blame
    try:
        yield
    except TrainingError as error:
        if blamed := watchdog.blame():
            raise TrainingError(f"{str(error).rstrip('.')}: {blamed}") from error
        raise
    finally:
        WAITS.watchdog = None
        watchdog.close()
