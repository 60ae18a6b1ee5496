"""Which settings a run must share with the one whose checkpoint or result it takes over."""

from collections.abc import Mapping

from hpc_lpm.options import TrainSettings, flatten_settings

_FREE = frozenset(
    {
        *("plan", "data_dir", "threads", "receive_timeout_seconds", "discard_steps"),
        *("trace_steps", "transport", "progress_thread", "checkpoint_epochs"),
    }
)
"""Settings that change nothing of what is computed, or only where it is."""


def agreeing_settings(settings: TrainSettings) -> dict[str, object]:
    """Return the settings that determine what is computed, under dotted names."""
    return flattened(settings.model_dump(mode="json"))


def flattened(document: Mapping[str, object]) -> dict[str, object]:
    """Return the same of settings as they stand in a file."""
    return flatten_settings({name: document[name] for name in document if name not in _FREE})


def first_difference(
    theirs: Mapping[str, object], ours: Mapping[str, object]
) -> tuple[str, object, object] | None:
    """Return the first setting that differs with both values, None standing for a missing one."""
    for name in [*ours, *theirs]:
        if theirs.get(name) != ours.get(name):
            return name, theirs.get(name), ours.get(name)
    return None
