"""Tells what kind of file a JSON document is, to say so where it is given for another kind."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice

TRACE, LOG = "trace", "log of a run"

_OF_STEPS = {"step", "epoch", "loss", "seconds", "lr"}
_OF_EVALUATIONS = {"evaluation_seconds", "drain_seconds"}
"""Keys of the lines of a log."""
_LINES_TO_LOOK_AT = 100
_BEGUN_LINE = '{"step": '
"""What is left of the first line of a log if the run was killed while it wrote it."""

_KEYS = {
    "profile": {"layers", "micro_batch", "link", "device"},
    "plan": {"stages", "planner", "profile_sha256"},
    "result": {"samples_per_second", "weights_sha256", "step_seconds"},
    "launch record": {"command", "exit_code", "started"},
    "checkpoint manifest": {"history", "files", "cuts"},
    "campaign file": {"models", "datasets", "strategies"},
    "record of a tuning": {"candidates", "chosen", "budget_seconds"},
    "settings file": {"model", "dataset"},
}
"""Keys that files of a kind have all of; of those that fit, the first is meant."""

_DESCRIPTIONS = {
    LOG: "the log of a run (metrics.jsonl)",
    TRACE: "a trace of events, as torch.profiler and `hpc-lpm train` (trace.json) write it",
    "profile": "a profile, as `hpc-lpm profile` writes it",
    "plan": "a plan, as `hpc-lpm plan` writes it",
    "result": "the result of a run (result.json)",
    "launch record": "the record of a launch (launch.json)",
    "checkpoint manifest": "the manifest of a checkpoint",
    "campaign file": "a campaign file, as snakemake takes it",
    "record of a tuning": "the record of a tuning, as a campaign writes it",
    "settings file": "a settings file, as `hpc-lpm train --settings` takes it",
}


def kind_of(document: object) -> str | None:
    """Return the kind of file that a document is by its keys, None if it is none that is known."""
    if isinstance(document, list):
        first = document[0] if document else None
        return TRACE if isinstance(first, Mapping) and {"ph", "ts"} <= first.keys() else None
    if not isinstance(document, Mapping):
        return None
    if "traceEvents" in document:
        return TRACE
    return next((kind for kind, keys in _KEYS.items() if keys <= document.keys()), None)


def kind_of_text(text: str) -> str | None:
    """Return the kind of file that a text is which is no JSON, such as a trace cut short."""
    if '"traceEvents"' in text[:1_000_000]:
        return TRACE
    return LOG if text and is_log(text.splitlines(keepends=True)) else None


def is_log(lines: Iterable[str]) -> bool:
    """Tell if the lines of a file are those of a run's log, or if there are none."""
    looked_at = list(islice(lines, _LINES_TO_LOOK_AT))
    complete = [line for line in looked_at if line.endswith("\n")]
    if looked_at and not complete:
        return looked_at[0].startswith(_BEGUN_LINE)
    return not looked_at or any(map(_is_line_of_log, complete))


def _is_line_of_log(line: str) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    keys = entry.keys() if isinstance(entry, dict) else set()
    return keys >= _OF_STEPS or keys >= _OF_EVALUATIONS


def mistaken_for(kind: str, document: object) -> str | None:
    """Say what a document is that was given as another kind, None if that cannot be told."""
    found = kind_of(document)
    return None if found in {None, kind} else describe_kind(str(found))


def describe_kind(kind: str) -> str:
    """Describe a kind of file with the command that makes it."""
    return _DESCRIPTIONS[kind]
