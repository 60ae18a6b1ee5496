"""Results as tables: losses over seeds, and steps to the loss of one device."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev

from benchmarks.delay_study.trials import Results, Trial
from benchmarks.race import markdown

COLUMNS = ["task", "optimizer", "K", "M", "correction", "rate", "updates", "loss", "seeds"]


def losses(trials: Sequence[Trial], results: Results) -> str:
    """Return a Markdown table with one row for trials that differ by their seeds alone."""
    groups: dict[Trial, list[float]] = {}
    for trial in trials:
        result = results.find(trial)
        if result is not None:
            groups.setdefault(replace(trial, seed=0), []).append(result["loss"])
    rows = []
    for trial, values in groups.items():
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        rows.append(
            [
                *(trial.task, trial.optimizer, str(trial.stages), str(trial.micro_batches)),
                *(trial.label, f"{trial.rate:g}", str(trial.updates)),
                *(f"{mean(values):.3f}{spread}", str(len(values))),
            ]
        )
    return markdown(COLUMNS, rows)


def updates_to(target: float, lengths: Sequence[int], reached: Sequence[float]) -> float | None:
    """Return the length of a run that ends at a loss, interpolated between runs of two lengths.

    It is None if no run ends there, and the shortest run's length if each ends below.
    """
    pairs = sorted(zip(lengths, reached, strict=True))
    previous: tuple[int, float] | None = None
    for length, loss in pairs:
        if loss <= target:
            if previous is None:
                return float(length)
            share = (previous[1] - target) / (previous[1] - loss)
            return previous[0] + share * (length - previous[0])
        previous = (length, loss)
    return None


def ratios(trials: Sequence[Trial], results: Results) -> str:
    """Return a table of updates to the loss of one device, over that device's updates, by seed.

    The target is the loss of the trial with one stage of the same task, optimizer and seed.
    """
    targets = {
        (trial.task, trial.optimizer, trial.seed): trial for trial in trials if trial.stages == 1
    }
    groups: dict[Trial, list[Trial]] = {}
    for trial in trials:
        if trial.stages > 1:
            groups.setdefault(replace(trial, updates=0), []).append(trial)
    rows: dict[Trial, list[str]] = {}
    for kind, members in groups.items():
        target = targets[kind.task, kind.optimizer, kind.seed]
        known = [(trial.updates, found) for trial in members if (found := results.find(trial))]
        found = results.find(target)
        if found is None or not known:
            continue
        lengths, reached = zip(*((n, result["loss"]) for n, result in known), strict=True)
        updates = updates_to(found["loss"], lengths, reached)
        text = f"over {max(lengths) / target.updates:.2f}" if updates is None else ""
        rows.setdefault(replace(kind, seed=0), []).append(
            text or f"{(updates or 0) / target.updates:.2f}"
        )
    columns = ["task", "optimizer", "K", "M", "correction", "rate", "steps, by seed"]
    lines = [
        [
            *(kind.task, kind.optimizer, str(kind.stages), str(kind.micro_batches), kind.label),
            *(f"{kind.rate:g}", ", ".join(values)),
        ]
        for kind, values in rows.items()
    ]
    return markdown(columns, lines)
