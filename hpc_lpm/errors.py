"""The errors that a user can fix, as opposed to defects of the toolkit."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Entry = TypeVar("Entry")


class InputError(Exception):
    """Bad usage or bad input; the command line shows the message and exits with code 2.

    The message is one sentence: what was found, where, what is accepted, what to do.
    """


class TrainingError(Exception):
    """A fault during training; the command line shows the message, ends all ranks and exits with 1.

    The message is one sentence: stage, micro-batch and layer as far as known, what happened, what
    to do. The exception that caused the fault is chained.
    """


EXIT_INTERRUPTED = 75
"""Exit code of a run that saved a checkpoint after a signal had stopped it."""


class InterruptedTrainingError(Exception):
    """A signal has stopped the training; the command line exits with `EXIT_INTERRUPTED`.

    The message is one sentence: which signal, after which step, what was saved, how to go on.
    """


def closest(word: str, accepted: list[str]) -> str:
    """Return a hint such as `, did you mean 'digits'?`, or an empty string if no name is close."""
    near = get_close_matches(word, accepted)
    near.sort(key=lambda name: not name.startswith(word))
    return f", did you mean {near[0]!r}?" if near else ""


def look_up(kind: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """Return the entry of that name.

    Args:
        kind: the word for such an entry in messages, such as "optimizer".
        name: the name that the user gave.
        registry: all entries by name.

    Raises:
        InputError: if there is no entry of that name.
    """
    if name not in registry:
        accepted = list(registry)
        raise InputError(
            f"{kind} {name!r} is unknown{closest(name, accepted)}: "
            f"accepted are {', '.join(accepted)}."
        )
    return registry[name]
