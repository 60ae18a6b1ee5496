"""The errors that a user can fix, as opposed to defects of the toolkit."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Entry = TypeVar("Entry")


class PicturedError(Exception):
    """An error whose message is a sentence, below which there may be a picture of several lines."""

    def __init__(self, sentence: str, picture: str = "") -> None:
        super().__init__(*filter(None, (sentence, picture)))
        self.sentence = sentence
        self.picture = picture

    def __str__(self) -> str:
        return "\n".join(self.args)


class InputError(PicturedError):
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


LONGEST_SENTENCE = 4000
"""Characters of a sentence: more than any of ours has without the values that it quotes."""


def in_one_line(sentence: str) -> str:
    """Return a sentence as a terminal may show it: without ends of lines and control characters.

    A sentence that quotes too much is cut short in its middle.
    """
    if len(sentence) > LONGEST_SENTENCE:
        half = LONGEST_SENTENCE // 2
        sentence = f"{sentence[:half]} ... {sentence[-half:]}"
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in " ".join(sentence.splitlines())
    )


def closest(word: object, accepted: list[str]) -> str:
    """Return a hint such as `, did you mean 'digits'?`, or an empty string if no name is close."""
    typed = str(word)  # a key of YAML may be a number
    near = get_close_matches(typed, accepted)
    near.sort(key=lambda name: not name.startswith(typed))
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
