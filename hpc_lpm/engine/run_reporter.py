"""Reports how a run goes: a bar on a terminal or plain lines in a log, and `metrics.jsonl`."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from hpc_lpm.documents import DocumentError, parse_json
from hpc_lpm.engine.evaluation import Evaluation
from hpc_lpm.engine.records import StepNorms
from hpc_lpm.engine.trackers import Tracking
from hpc_lpm.errors import TrainingError
from hpc_lpm.files import read_text, write_text_atomically

METRICS = "metrics.jsonl"

_PLAIN_LINE_SECONDS = 5.0


class ProgressDisplay(Protocol):
    """Shows how far a run is."""

    def step(self, done: int, text: str) -> None:
        """Show that `done` steps are finished."""

    def message(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Stop drawing."""


class TerminalBar:
    """Draws a live bar on a terminal."""

    def __init__(self, title: str, steps: int, console: Console) -> None:
        self._progress = Progress(
            # Names are neither markup nor a format, as a column's own text would be.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(title, total=steps, text="")
        self._progress.start()

    def step(self, done: int, text: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, text=text)

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, emoji=False, highlight=False)

    def close(self) -> None:
        """Stop the bar."""
        self._progress.stop()


class PlainLines:
    """Writes a line every few seconds."""

    def __init__(self, title: str, steps: int, stream: IO[str]) -> None:
        self._title = title
        self._steps = steps
        self._stream = stream
        self._next_line = time.monotonic() + _PLAIN_LINE_SECONDS

    def step(self, done: int, text: str) -> None:
        """Write a line if the last one is old enough."""
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PLAIN_LINE_SECONDS
            self.message(f"{self._title} | step {done}/{self._steps} | {text}")

    def message(self, text: str) -> None:
        """Write a line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


class MetricsLog:
    """Writes `metrics.jsonl`: one line for each step and each epoch, readable during the run.

    Args:
        path: the file.
        steps: the number of steps to keep of what an earlier run has written.
        epochs: the number of evaluations after epochs to keep likewise.
        evaluated: the step after which the last evaluation to keep was made.
        tracking: gets the same values.

    Raises:
        TrainingError: from every method, if the file cannot be written, as on a full disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        steps: int = 0,
        epochs: int = 0,
        evaluated: int = 0,
        tracking: Tracking | None = None,
    ) -> None:
        self._tracking = tracking
        self._path = path
        self._step = -1
        self._stream = self._opened(steps, epochs, evaluated)

    def cut_after(self, steps: int, epochs: int, evaluated: int) -> None:
        """Keep so many steps and evaluations alone, as at the beginning."""
        with self._written():
            self._stream.close()
            self._stream = self._opened(steps, epochs, evaluated)

    def _opened(self, steps: int, epochs: int, evaluated: int) -> IO[str]:
        self._step = steps - 1
        kept = _lines_before(self._path, steps, epochs, evaluated) if steps else []
        write_text_atomically(self._path, "".join(kept))
        return self._path.open("a", encoding="utf-8", buffering=1)

    def write(self, **values: object) -> None:
        """Append one JSON object."""
        with self._written():
            self._stream.write(json.dumps(values) + "\n")
        step = values.pop("step", self._step)
        assert isinstance(step, int)
        self._step = step
        if self._tracking:
            self._tracking.log(values, step)

    def sync(self) -> None:
        """Flush all lines to the disk."""
        with self._written():
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        with self._written():
            self._stream.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self._path} cannot be written ({error.strerror}): make room, or give another "
                "--out."
            ) from error


def _lines_before(path: Path, steps: int, epochs: int, evaluated: int) -> list[str]:
    """Return the complete lines of an earlier run about its first steps and evaluations."""
    if not path.exists():
        return []
    kept = []
    for line in read_text(path, errors="replace").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        if _is_earlier(line, steps, epochs, evaluated):
            kept.append(line)
    return kept


def _is_earlier(line: str, steps: int, epochs: int, evaluated: int) -> bool:
    """Tell if a line is about the first steps and evaluations; one that is damaged is not."""
    try:
        entry = parse_json(line)
    except DocumentError:
        return False
    if not isinstance(entry, dict):
        return False
    if "step" not in entry:
        place, end = entry.get("epoch"), epochs
    else:
        place, end = entry["step"], evaluated if "evaluation_seconds" in entry else steps
    return isinstance(place, int) and place < end


def _logged(evaluations: Sequence[Evaluation]) -> dict[str, object]:
    values: dict[str, object] = {}
    for each in evaluations:
        values |= each.values
    seconds = sum(each.seconds for each in evaluations)
    return {
        **values,
        "evaluation_seconds": seconds,
        "drain_seconds": evaluations[0].drain_seconds,
    }


class RunReporter:
    """Reports how the run goes to the display and to `metrics.jsonl`; only one rank has it."""

    def __init__(
        self,
        display: ProgressDisplay,
        log: MetricsLog,
        *,
        batch_size: int,
        steps_an_epoch: int,
        learning_rate: Callable[[int], float],
        group_rates: Callable[[int], list[float]],
    ) -> None:
        self._display = display
        self._log = log
        self._batch_size = batch_size
        self._steps_an_epoch = steps_an_epoch
        self._learning_rate = learning_rate
        self._group_rates = group_rates

    def step(self, step: int, loss: float | None, seconds: float, skipped: bool) -> None:
        """Report one optimizer step, whose update may have been skipped."""
        epoch = step // self._steps_an_epoch
        more: dict[str, object] = {"skipped": True} if skipped else {}
        if rates := self._group_rates(step):
            more["group_lr"] = rates
        lr = self._learning_rate(step)
        self._log.write(step=step, epoch=epoch, loss=loss, seconds=seconds, lr=lr, **more)
        rate = f"{self._batch_size / seconds:.1f} samples/s" if seconds > 0 else ""
        shown = "" if loss is None else f"loss {loss:.4f} | "
        shown += "update skipped | " if skipped else ""
        self._display.step(step + 1, f"epoch {epoch + 1} | {shown}{rate}")

    def epoch(
        self, evaluations: Sequence[Evaluation], epochs: int, samples_per_second: float | None
    ) -> None:
        """Report the evaluation after an epoch.

        Args:
            evaluations: of each part of the data.
            epochs: the number of epochs of the run.
            samples_per_second: the rate of the epoch; None if it was trained before a resumption.
        """
        epoch = evaluations[0].epoch
        self._log.write(epoch=epoch - 1, **_logged(evaluations))
        rate = "" if samples_per_second is None else f" | {samples_per_second:.1f} samples/s"
        shown = " | ".join(map(str, evaluations))
        self._display.message(f"epoch {epoch}/{epochs} | {shown}{rate}")

    def norms(self, of_stages: Sequence[Sequence[StepNorms]]) -> None:
        """Log the norms of gradients and weights, as every stage has kept them for the same steps.

        A norm that is not finite is logged as null.
        """
        for stages in zip(*of_stages, strict=True):
            values: dict[str, object] = {}
            for kind in ("gradient", "weight"):
                norms = [float(getattr(stage, kind)) for stage in stages]
                values[f"{kind}_norm"] = _finite(math.hypot(*norms))
                if len(norms) > 1:
                    values[f"stage_{kind}_norms"] = [_finite(norm) for norm in norms]
            self._log.write(step=stages[0].step, **values)

    def evaluation(self, evaluations: Sequence[Evaluation], steps: int) -> None:
        """Report an evaluation inside an epoch.

        Args:
            evaluations: of each part of the data.
            steps: the number of optimizer steps of the run.
        """
        step, logged = evaluations[0].step, _logged(evaluations)
        self._log.write(step=step - 1, **logged)
        shown = " | ".join(map(str, evaluations))
        self._display.message(
            f"step {step}/{steps} | {shown} | evaluated in {logged['evaluation_seconds']:.2f} s, "
            f"drained in {logged['drain_seconds']:.2f} s"
        )

    def message(self, text: str) -> None:
        """Show a message on the display."""
        self._display.message(text)

    def rewound(self, text: str, *, steps: int, epochs: int, evaluated: int) -> None:
        """Show why training goes on after so many steps, and forget those behind them."""
        self._log.cut_after(steps, epochs, evaluated)
        self._display.message(text)

    def sync(self) -> None:
        """Flush the log to the disk."""
        self._log.sync()

    def close(self) -> None:
        """Close the display and the log."""
        self._display.close()
        self._log.close()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
