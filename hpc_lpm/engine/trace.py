"""The timeline of a run as a Chrome trace, which Perfetto and chrome://tracing open."""

import json

from hpc_lpm.engine.recorder import Interval

_MICROSECONDS = 1e6


def chrome_trace(intervals_by_rank: list[list[Interval]]) -> str:
    """Return the JSON of a trace with one row a rank; see the Trace Event Format, phase X."""
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
