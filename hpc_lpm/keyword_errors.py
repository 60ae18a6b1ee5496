"""Errors that name options of the command line, told to those who call functions instead."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_lpm.errors import InputError, TrainingError

_OPTION = re.compile(r"--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")
_OTHERWISE = {
    "receive-timeout": "receive_timeout_seconds",
    "cycle-time": "cycle_time_milliseconds",
}
"""Options whose names differ from those of their keywords in more than dashes."""
_DEBUG = (
    "--debug shows the traceback",
    "logging.getLogger('hpc_lpm').setLevel('DEBUG') shows the traceback",
)
_COMMAND = "`"


@contextmanager
def options_as_keywords() -> Iterator[None]:
    """Let errors from here name the keywords of functions: `memory_limit` in place of an option.

    Commands, which stand between backquotes, are left as they are.
    """
    try:
        yield
    except (InputError, TrainingError) as error:
        error.args = (in_keywords(str(error)),)
        raise


def in_keywords(sentence: str) -> str:
    """Return a sentence with keywords in the place of options."""
    parts = sentence.replace(*_DEBUG).split(_COMMAND)
    parts[::2] = [_OPTION.sub(_keyword, part) for part in parts[::2]]
    return _COMMAND.join(parts)


def _keyword(option: re.Match[str]) -> str:
    return _OTHERWISE.get(option[1], option[1].replace("-", "_"))
