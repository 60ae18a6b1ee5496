"""Reads the log of a run, `metrics.jsonl`, even while the run is still writing it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_lpm.documents import DocumentError, parse_json
from hpc_lpm.files import read_text

_OF_PART = re.compile("(test|validation)_")


@dataclass(frozen=True)
class LoggedEvaluation:
    """An evaluation: the steps done by then, and loss and metrics under names as `test_accuracy`.

    `after_epoch` is False inside an epoch.
    """

    steps: int
    after_epoch: bool
    values: dict[str, float | None]


@dataclass
class RunLog:
    """What a run has logged so far; `step_seconds` has one entry per optimizer step."""

    step_seconds: list[float] = field(default_factory=list)
    evaluations: list[LoggedEvaluation] = field(default_factory=list)

    @property
    def epoch_ends(self) -> list[int]:
        """The steps done by the end of each epoch."""
        return [each.steps for each in self.evaluations if each.after_epoch]


def read_run_log(path: Path) -> RunLog:
    """Return what a run has written so far, nothing if the file is not there.

    A line that is still being written is left out, and so is one that is damaged.
    """
    log = RunLog()
    try:
        text = read_text(path, errors="replace")
    except OSError:
        return log
    for line in text.split("\n")[:-1]:
        entry = _entry(line)
        if _is_number(entry.get("seconds")):
            log.step_seconds.append(entry["seconds"])
        values = {
            name: value
            for name, value in entry.items()
            if _OF_PART.match(name) and (value is None or _is_number(value))
        }
        if values:
            steps = len(log.step_seconds)
            log.evaluations.append(LoggedEvaluation(steps, "step" not in entry, values))
    return log


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = parse_json(line)
    except DocumentError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
