"""Live tracking of a run: TensorBoard's event files, or whatever a user's own tracker writes.

A tracker is named by `--tracker`: `tensorboard`, or `module:callable` for one of the user's own, a
function or a class. It is called once, with the configuration of the run and its folder, and
returns an object with `log(values, step)` and, if it likes, `close(status)`:

    def my_tracker(configuration: dict[str, object], folder: Path) -> Tracker: ...

It gets what `metrics.jsonl` gets, as numbers, and only the rank that reports has it.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.job import Job
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry
from hpc_lpm.user_functions import describe_raised, user_function

Status = Literal["finished", "interrupted", "failed"]
"""How a run has ended."""

_OPENING_SECONDS = 60.0
_CLOSING_SECONDS = 30.0
_WAITING_AT_MOST = 10_000
"""How many entries may wait for a tracker; one that takes so long must not fill the memory."""


class Tracker(Protocol):
    """What follows a run; `close(status: Status)` may be there too."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Take note of numbers by name, as they were after an optimizer step (counted from 0)."""


OpenTracker = Callable[[dict[str, object], Path], Tracker]


class TensorBoardTracker:
    """Writes event files into `tensorboard/` of the run's folder.

    Args:
        configuration: of the run; a text in TensorBoard shows it.
        folder: the run's folder.

    Raises:
        InputError: if the package tensorboard is not installed.
    """

    def __init__(self, configuration: dict[str, object], folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError(
                "--tracker tensorboard needs the package tensorboard, which is not installed: "
                'pip install "hpc-lpm[tensorboard]".'
            ) from None
        first = configuration["first_step"]
        assert isinstance(first, int)
        # What an interrupted run has written of later steps is not shown.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first or None)
        shown = json.dumps(configuration, indent=2, default=str)
        self._writer.add_text("configuration", f"```\n{shown}\n```", first)

    def log(self, values: dict[str, float], step: int) -> None:
        """Write the values of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, status: Status) -> None:
        """Write what has not been written yet."""
        self._writer.close()


def _users_own(name: str, found: object) -> OpenTracker:
    if isinstance(found, type):
        return found
    accepted = ("configuration, folder", "an object with log(values, step)")
    return user_function("tracker", name, found, *accepted)  # type: ignore[return-value]


TRACKERS: Registry[OpenTracker] = Registry(
    "tracker", "hpc_lpm.trackers", {"tensorboard": TensorBoardTracker}, _users_own
)


class Tracking:
    """The trackers of a run, each in a thread of its own: no rank ever waits for one.

    A tracker that raises while the run trains is left out from then on.

    Args:
        names: of the trackers.
        configuration: of the run, with the key `first_step`, which is above 0 of a resumed run.
        folder: the run's folder.
        warn: called with a sentence about a tracker that is left out.

    Raises:
        InputError: if a tracker cannot be opened.
    """

    def __init__(
        self,
        names: Sequence[str],
        configuration: Mapping[str, object],
        folder: Path,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._followers = [_Follower(name, warn) for name in names]
        for follower in self._followers:
            follower.open(dict(configuration), folder)

    def log(self, values: Mapping[str, object], step: int) -> None:
        """Hand the numbers among these values to the trackers, those of a list as `name.0` etc."""
        numbers: dict[str, float] = {}
        for name, value in values.items():
            listed = enumerate(value) if isinstance(value, list) else ()
            for key, each in [(name, value), *((f"{name}.{n}", one) for n, one in listed)]:
                if isinstance(each, int | float):
                    numbers[key] = float(each)
        for follower in self._followers:
            follower.log(numbers, step)

    def close(self, status: Status) -> None:
        """Let the trackers end, for a limited time."""
        deadline = time.monotonic() + _CLOSING_SECONDS
        for follower in self._followers:
            if not follower.close(status, max(0.0, deadline - time.monotonic())):
                self._warn(
                    f"tracker {follower.name!r} has not ended within {_CLOSING_SECONDS:g} s: it "
                    "may lack the last steps."
                )


class _Follower:
    """One tracker in its thread, which takes what waits for it in a queue."""

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self.name = name
        self._warn = warn
        self._entries: queue.Queue[tuple[dict[str, float], int] | Status] = queue.Queue(
            _WAITING_AT_MOST
        )
        self._thread: threading.Thread | None = None

    def open(self, configuration: dict[str, object], folder: Path) -> None:
        answer: queue.Queue[InputError | None] = queue.Queue()
        self._thread = threading.Thread(
            target=self._work, args=(configuration, folder, answer), daemon=True
        )
        self._thread.start()
        try:
            problem = answer.get(timeout=_OPENING_SECONDS)
        except queue.Empty:
            problem = InputError(
                f"--tracker {self.name} is not ready after {_OPENING_SECONDS:g} s: see what it "
                "waits for, or leave it out."
            )
        if problem is not None:
            raise problem

    def log(self, values: dict[str, float], step: int) -> None:
        # A tracker that is so far behind shows a gap.
        with suppress(queue.Full):
            self._entries.put_nowait((values, step))

    def close(self, status: Status, limit_seconds: float) -> bool:
        """Tell if the tracker has ended within the limit."""
        if self._thread is None or not self._thread.is_alive():
            return True
        with suppress(queue.Full):
            self._entries.put(status, timeout=limit_seconds)
        self._thread.join(limit_seconds)
        return not self._thread.is_alive()

    def _work(
        self,
        configuration: dict[str, object],
        folder: Path,
        answer: "queue.Queue[InputError | None]",
    ) -> None:
        try:
            tracker = _opened(self.name, configuration, folder)
        except InputError as error:
            answer.put(error)
            return
        except BaseException as error:  # nothing else would hear of it in this thread
            problem = f"tracker {self.name!r} raises {describe_raised(error)}: correct it."
            answer.put(InputError(problem))
            return
        answer.put(None)
        try:
            while not isinstance(entry := self._entries.get(), str):
                tracker.log(dict(entry[0]), entry[1])
            if close := getattr(tracker, "close", None):
                close(entry)
        except (Exception, SystemExit) as error:
            self._warn(
                f"tracker {self.name!r} raises {describe_raised(error)}: it is left out from now "
                "on, training goes on."
            )


def _opened(name: str, configuration: dict[str, object], folder: Path) -> Any:
    """Open a tracker.

    Raises:
        InputError: if that fails, or it is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tracker = TRACKERS.named(name)(configuration, folder)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"tracker {name!r} raises {describe_raised(error)}: correct it, or leave it out."
        ) from error
    if not callable(getattr(tracker, "log", None)):
        raise InputError(
            f"tracker {name!r} returned {type(tracker).__name__}, accepted is an object with "
            "log(values, step) and, if it likes, close(status)."
        )
    return tracker


def open_tracking(
    job: Job,
    names: Sequence[str],
    configuration: Mapping[str, object],
    folder: Path,
    warn: Callable[[str], None] | None,
) -> Tracking | None:
    """Open a run's trackers on the rank that reports (collective); return None on all others.

    Args:
        job: the ranks.
        names: see `Tracking`.
        configuration: see `Tracking`.
        folder: see `Tracking`.
        warn: see `Tracking`; None on all ranks but the one that reports.

    Raises:
        InputError: on every rank, if a tracker cannot be opened.
    """
    opened: list[Tracking] = []

    def open_here() -> None:
        if warn is not None:
            opened.append(Tracking(names, configuration, folder, warn))

    if names:
        run_on_every_rank(
            job, open_here, (InputError,), lambda problem, _: InputError(f"{problem}.")
        )
    return opened[0] if opened else None


def check_trackers(names: Sequence[str]) -> None:
    """Check that all trackers can be found.

    Raises:
        InputError: if one is unknown, cannot be imported, or is named twice.
    """
    for name in names:
        TRACKERS.named(name)
        if names.count(name) > 1:
            raise InputError(f"--tracker {name} was given twice, give it once.")
