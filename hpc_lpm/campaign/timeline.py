"""What the ranks of a run did when: the Chrome trace, and a window of it in steady state."""

import json
from dataclasses import dataclass
from pathlib import Path

COMPUTING = ("forward", "replay", "backward", "update")
"""Phases drawn in a timeline; in all other time a rank waits or communicates."""

STEPS_IN_WINDOW = 3


@dataclass(frozen=True)
class Phase:
    """One phase of one rank; times are seconds on the clock of the trace."""

    name: str
    rank: int
    start: float
    stop: float
    micro_batch: int | None


def read_trace(path: Path) -> list[Phase]:
    """Return the phases of a trace in order of time, none if the file is missing or unreadable."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        events = [event for event in document["traceEvents"] if event.get("ph") == "X"]
        phases = [
            Phase(
                name=event["name"],
                rank=int(event["tid"]),
                start=event["ts"] * 1e-6,
                stop=(event["ts"] + event["dur"]) * 1e-6,
                micro_batch=event.get("args", {}).get("micro_batch"),
            )
            for event in events
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted(phases, key=lambda phase: (phase.start, phase.rank))


def steady_window(phases: list[Phase]) -> tuple[float, float]:
    """Return start and stop of about three optimizer steps in the middle of the trace.

    It reaches from one update of the first rank to the third after it; of a trace with too few
    updates, it is everything.
    """
    if not phases:
        return (0.0, 0.0)
    first = min(phase.rank for phase in phases)
    ends = [phase.stop for phase in phases if phase.name == "update" and phase.rank == first]
    if len(ends) <= STEPS_IN_WINDOW:
        return (min(phase.start for phase in phases), max(phase.stop for phase in phases))
    position = (len(ends) - 1 - STEPS_IN_WINDOW + 1) // 2
    return (ends[position], ends[position + STEPS_IN_WINDOW])


def clip(phases: list[Phase], start: float, stop: float) -> list[Phase]:
    """Return the computing phases inside [start, stop], cut at its edges."""
    return [
        Phase(
            phase.name,
            phase.rank,
            max(phase.start, start),
            min(phase.stop, stop),
            phase.micro_batch,
        )
        for phase in phases
        if phase.name in COMPUTING and phase.stop > start and phase.start < stop
    ]


def idle_share(clipped: list[Phase], rank: int, start: float, stop: float) -> float:
    """Return the share of [start, stop] in which no phase of `rank` runs; phases may overlap."""
    covered = 0.0
    reached = start
    for phase in sorted((p for p in clipped if p.rank == rank), key=lambda p: p.start):
        covered += max(0.0, phase.stop - max(phase.start, reached))
        reached = max(reached, phase.stop)
    return 1.0 - covered / (stop - start)
