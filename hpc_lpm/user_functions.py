"""Functions that users write: called so that a mistake in one comes back as a sentence."""

import inspect
import os
import sysconfig
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from hpc_lpm.errors import InputError

_LONGEST_QUOTE = 300

_OURS = f"{Path(__file__).parent}{os.sep}"
_LIBRARIES = (
    *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib", "platlib")),
    _OURS,
    "<frozen",
)
"""What file names begin with in Python's library, installed packages and this toolkit."""


def user_function(
    kind: str, name: str, found: object, argument: str, returns: str
) -> Callable[..., object]:
    """Return `found` as a function whose exceptions name it and the line that raised them.

    Args:
        kind: what the function makes, such as "model".
        name: what the user typed to name the function, such as `my_models:perceptron`.
        found: what that name refers to.
        argument: what the function takes as its first argument, for messages.
        returns: what it should return, for messages.

    Raises:
        InputError: if `found` is not a function that takes an argument.
    """
    attribute = name.rpartition(":")[2]
    accepted = f"accepted is a function {attribute}({argument}, ...) that returns {returns}"
    if isinstance(found, type):
        raise InputError(f"{kind} {name!r} is a class, {accepted}: write a function that uses it.")
    if not callable(found):
        raise InputError(
            f"{kind} {name!r} is not callable but of type {type(found).__name__}, {accepted}."
        )
    if not _takes_an_argument(found):
        raise InputError(f"{kind} {name!r} takes no positional argument, {accepted}.")

    @wraps(found)
    def guarded(*arguments: object, **options: object) -> object:
        try:
            return found(*arguments, **options)
        except InputError as error:
            raise InputError(f"{kind} {name!r}: {error}") from error
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{kind} {name!r} raises {describe_raised(error)}: correct it; --debug shows the "
                "traceback."
            ) from error

    return guarded


def describe_raised(error: BaseException) -> str:
    """Return type and message of an exception, and the line of the user's own code that raised it.

    A line of a library is named if none of the user's was running, a line of the toolkit never.
    """
    message = " ".join(str(error).split())[:_LONGEST_QUOTE].rstrip(".")
    described = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    last = (theirs or frames)[-1:]
    # A syntax error names its place by itself.
    if isinstance(error, SyntaxError) or not last or last[0].filename.startswith(_OURS):
        return described
    return f"{described} ({last[0].filename}, line {last[0].lineno})"


def first_line(found: object) -> str:
    """Return the first line of a function's docstring, nothing if it has none."""
    documented = inspect.getdoc(found) if inspect.isroutine(found) else None
    return (documented or "").partition("\n")[0].rstrip(".")


def _takes_an_argument(found: Callable[..., object]) -> bool:
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except ValueError:  # a builtin without a signature
        return True
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return bool(parameters) and parameters[0].kind in positional
