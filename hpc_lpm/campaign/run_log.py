"""Reads the log of a run, `metrics.jsonl`, even while the run is still writing it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class RunLog:
    """What a run has logged so far.

    `step_seconds` and `losses` have one entry per optimizer step. `accuracies` has one per
    evaluation: the steps done by then, the seconds trained by then (evaluation excluded), and the
    test accuracy.
    """

    step_seconds: list[float] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    accuracies: list[tuple[int, float, float]] = field(default_factory=list)


def read_run_log(path: Path) -> RunLog:
    """Return what a run has written so far, nothing if the file is not there.

    A line that is still being written is left out, and so is one that is damaged.
    """
    log = RunLog()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return log
    trained_seconds = 0.0
    for line in text.split("\n")[:-1]:
        entry = _entry(line)
        if "seconds" in entry:
            trained_seconds += entry["seconds"]
            log.step_seconds.append(entry["seconds"])
            log.losses.append(entry.get("loss"))
        if "test_accuracy" in entry:
            steps = len(log.step_seconds)
            log.accuracies.append((steps, trained_seconds, entry["test_accuracy"]))
    return log


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
