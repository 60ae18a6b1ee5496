"""The errors that a user can mend, told apart from defects of the toolkit."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Entry = TypeVar("Entry")


class InputError(Exception):
    """Bad usage or bad input; the command line shows the message and exits with code 2.

    The message is one sentence: what was found, where, what is accepted, what to do.
    """


class TrainingError(Exception):
    """A fault while training; the command line shows the message, ends all ranks, exits with 1.

    The message is one sentence: stage, micro-batch and layer as far as known, what happened, what
    to do. What caused it is chained.
    """


EXIT_INTERRUPTED = 75
"""Exit code of a training that a signal has stopped and that has saved a checkpoint."""


class InterruptedTrainingError(Exception):
    """A signal has stopped the training; the command line exits with `EXIT_INTERRUPTED`.

    The message is one sentence: which signal, after which step, what was saved, how to go on.
    """


def closest(word: str, accepted: list[str]) -> str:
    """Return a hint such as `, did you mean 'digits'?`, or nothing if no name is near."""
    near = get_close_matches(word, accepted)
    near.sort(key=lambda name: not name.startswith(word))
    return f", did you mean {near[0]!r}?" if near else ""


def look_up(kind: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """Return the entry of that name; `kind` is what such entries are called.

    Raises:
        InputError: if there is none.
    """
    if name not in registry:
        accepted = list(registry)
        raise InputError(
            f"{kind} {name!r} is unknown{closest(name, accepted)}: "
            f"accepted are {', '.join(accepted)}."
        )
    return registry[name]
