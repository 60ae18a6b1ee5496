"""Reads `metrics.jsonl`, also while a run is still writing it."""

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Metrics:
    """What a run has reported so far.

    `step_seconds` has an entry an optimizer step; `accuracies` an entry an evaluation: the steps
    done by then, the training seconds spent by then (evaluation excluded), the test accuracy.
    """

    step_seconds: list[float] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    accuracies: list[tuple[int, float, float]] = field(default_factory=list)


def read_metrics(path: Path) -> Metrics:
    """Return the metrics written so far, none if the file is not there.

    A line that is still being written is left out.
    """
    metrics = Metrics()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return metrics
    trained_seconds = 0.0
    for line in text.split("\n")[:-1]:
        entry = json.loads(line)
        if "seconds" in entry:
            trained_seconds += entry["seconds"]
            metrics.step_seconds.append(entry["seconds"])
            metrics.losses.append(entry.get("loss"))
        if "test_accuracy" in entry:
            steps = len(metrics.step_seconds)
            metrics.accuracies.append((steps, trained_seconds, entry["test_accuracy"]))
    return metrics
