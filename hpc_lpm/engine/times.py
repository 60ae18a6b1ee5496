"""Computes times and losses of a run, and its trace, from the records of its ranks."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpc_lpm.engine.records import SegmentRecord, TracedInstruction

TRACE = "trace.json"

_MICROSECONDS = 1e6

Ranks = Sequence[SegmentRecord]
"""The records of one segment by all ranks that trained it, in rank order."""


@dataclass(frozen=True)
class TimesAndLosses:
    """The fields of `RunResult` on times and losses, see there."""

    step_seconds: list[float]
    training_seconds: float
    samples_per_second: float
    idle_share: list[float]
    train_loss: list[float | None]
    drain_seconds: float
    seconds_by_kind: list[dict[str, float]]


def times_and_losses(
    records: list[list[SegmentRecord]],
    step_samples: list[int],
    discard_steps: int,
    *,
    independent: bool = False,
    earlier: Sequence[Ranks] = (),
) -> TimesAndLosses:
    """Compute times and losses of a run from the segments of every rank.

    A step ends when the slowest rank has ended it; losses of several ranks are averaged over their
    samples.

    Args:
        records: the segments of every rank, in rank order.
        step_samples: the samples of every optimizer step, over all ranks.
        discard_steps: the first steps, which `samples_per_second` leaves out.
        independent: True if every rank trains a batch of its own in each step.
        earlier: segments that another partition trained before; they count for steps and losses,
            not for the lists by rank.
    """
    segments = [*earlier, *zip(*records, strict=True)]
    step_seconds = _step_seconds(segments)
    losses: list[float | None] = []
    for ranks in segments:
        samples = np.array([record.step_samples for record in ranks])
        means = np.array([record.step_losses for record in ranks], dtype=float)  # None is NaN
        steps = ((samples * means).sum(axis=0) / samples.sum(axis=0)).tolist()
        losses.extend(None if math.isnan(loss) else loss for loss in steps)
    first = discard_steps if discard_steps < len(step_seconds) else 0
    clocks = [[(record,) for record in rank] for rank in records] if independent else [segments]
    rates = [sum(step_samples[first:]) / sum(_step_seconds(clock)[first:]) for clock in clocks]
    busy = [sum(record.busy_seconds for record in rank) for rank in records]
    own_seconds = _training_seconds(segments[len(earlier) :])
    return TimesAndLosses(
        step_seconds=step_seconds,
        training_seconds=_training_seconds(segments),
        samples_per_second=sum(rates),
        idle_share=[max(0.0, own_seconds - one) / (own_seconds or 1.0) for one in busy],
        train_loss=losses,
        drain_seconds=sum(map(_drain_seconds, segments), 0.0),
        seconds_by_kind=[_seconds_by_kind(rank) for rank in records],
    )


def traced_intervals(segments: Sequence[Ranks]) -> list[list[TracedInstruction]]:
    """Return the traced instructions of every rank, in rank order, on one clock.

    It starts with the first of the segments that has any. What comes between two segments, such as
    an evaluation, takes no time on it.
    """
    rows: list[list[TracedInstruction]] = [[] for _ in max(segments, key=len, default=())]
    before = 0.0
    for ranks in segments:
        for row, record in zip(rows, ranks, strict=False):
            row.extend(
                replace(interval, start_seconds=before + interval.start_seconds)
                for interval in record.intervals
            )
        if any(rows):
            before += max(record.end_seconds for record in ranks)
    return rows


def _training_seconds(segments: Sequence[Ranks]) -> float:
    return sum((max(record.end_seconds for record in ranks) for ranks in segments), 0.0)


def _drain_seconds(ranks: Ranks) -> float:
    """Return for how long the first rank that had ended a segment waited for the last one."""
    ends = [record.end_seconds for record in ranks]
    return max(ends) - min(ends)


def _step_seconds(segments: Sequence[Ranks]) -> list[float]:
    """Return how long each step took until the slowest of these ranks had ended it."""
    seconds: list[float] = []
    for ranks in segments:
        ends = np.max([record.step_end_seconds for record in ranks], axis=0)
        seconds.extend(np.diff(ends, prepend=0.0).tolist())
    return seconds


def _seconds_by_kind(records: list[SegmentRecord]) -> dict[str, float]:
    kinds = {kind for record in records for kind in record.seconds_by_kind}
    return {
        kind: sum(record.seconds_by_kind.get(kind, 0.0) for record in records)
        for kind in sorted(kinds)
    }


def chrome_trace(intervals_by_rank: list[list[TracedInstruction]]) -> str:
    """Return a Chrome trace with one row for each rank, which Perfetto opens.

    The events are of phase X of the Trace Event Format, which is JSON.
    """
    events: list[dict[str, object]] = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": rank, "args": {"name": f"rank {rank}"}}
        for rank in range(len(intervals_by_rank))
    ]
    for rank, intervals in enumerate(intervals_by_rank):
        events.extend(
            {
                "name": interval.kind,
                "ph": "X",
                "pid": 0,
                "tid": rank,
                "ts": round(interval.start_seconds * _MICROSECONDS, 1),
                "dur": round(interval.duration_seconds * _MICROSECONDS, 1),
                "args": {"micro_batch": interval.micro_batch},
            }
            for interval in intervals
        )
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n"
