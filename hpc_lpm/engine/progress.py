"""What a person sees while a run trains: a bar on a terminal, plain lines in a log."""

import json
import time
from collections.abc import Callable
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
    """A live bar."""

    def __init__(self, title: str, steps: int, console: Console) -> None:
        self._progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
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
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Stop the bar."""
        self._progress.stop()


class PlainLines:
    """A line every few seconds."""

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
        """Nothing is drawn."""


class MetricsLog:
    """`metrics.jsonl`: a line a step and a line an epoch, readable while the run goes on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("w", encoding="utf-8", buffering=1)

    def write(self, **values: object) -> None:
        """Append one JSON object."""
        self._stream.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class RunReporter:
    """Tells a person and `metrics.jsonl` how the run goes; made on one rank only."""

    def __init__(
        self,
        display: ProgressDisplay,
        log: MetricsLog,
        *,
        batch_size: int,
        steps_an_epoch: int,
        learning_rate: Callable[[int], float],
    ) -> None:
        self._display = display
        self._log = log
        self._batch_size = batch_size
        self._steps_an_epoch = steps_an_epoch
        self._learning_rate = learning_rate

    def step(self, step: int, loss: float | None, seconds: float) -> None:
        """Report one optimizer step."""
        epoch = step // self._steps_an_epoch
        lr = self._learning_rate(step)
        self._log.write(step=step, epoch=epoch, loss=loss, seconds=seconds, lr=lr)
        rate = f"{self._batch_size / seconds:.1f} samples/s" if seconds > 0 else ""
        shown = "" if loss is None else f"loss {loss:.4f} | "
        self._display.step(step + 1, f"epoch {epoch + 1} | {shown}{rate}")

    def epoch(self, epoch: int, epochs: int, accuracy: float, samples_per_second: float) -> None:
        """Report the evaluation after an epoch; `accuracy` is a share from 0 to 1."""
        self._log.write(epoch=epoch, test_accuracy=accuracy)
        self._display.message(
            f"epoch {epoch + 1}/{epochs} | test accuracy {100 * accuracy:.2f} % | "
            f"{samples_per_second:.1f} samples/s"
        )

    def close(self) -> None:
        """End the display and the log."""
        self._display.close()
        self._log.close()
