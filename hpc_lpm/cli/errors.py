"""Exit codes, and the single sentence that a user sees when something is wrong."""

import errno
import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import typer
from pydantic import ValidationError

from hpc_lpm.cli.typed_arguments import check_arguments
from hpc_lpm.cli.unexpected import EXIT_UNEXPECTED, explain
from hpc_lpm.engine.quiet_end import abort_ranks_after, complain, speak
from hpc_lpm.errors import EXIT_INTERRUPTED, InputError, InterruptedTrainingError, TrainingError
from hpc_lpm.typed_values import describe_validation_error

EXIT_DONE = 0
EXIT_NOT_HELD = 1
EXIT_BAD_INPUT = 2

_OF_TORCHS_MEMORY = "DefaultCPUAllocator"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_OF_THE_USERS_FILES = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT),
    *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT),
    *(errno.EINVAL, errno.EOPNOTSUPP, errno.EBUSY, errno.ETXTBSY, errno.EFBIG, errno.ENOTEMPTY),
}
"""Faults of a file or folder that the user can mend; others are faults of the program."""


def run_guarded(
    app: typer.Typer,
    arguments: Sequence[str],
    register: Callable[[list[str]], None] | None = None,
) -> int:
    """Run `app` and return its exit code.

    `register` is called first, with the arguments, to add the commands that they need; what it
    raises is reported like a fault of the command.

    Bad usage, `InputError` and files that cannot be used become one sentence on stderr and code 2.
    If every rank of a job finds the same fault in the same input, only the first one reports it; a
    rank that is alone with its fault reports it itself. `TrainingError` becomes one sentence and
    code 1, and ends all ranks at once. A training that was stopped by a signal becomes one sentence
    and `EXIT_INTERRUPTED`. Any other error becomes one sentence, which names a file that holds its
    traceback, and `EXIT_UNEXPECTED`, and ends all ranks at once.
    With `--debug` there is a traceback as well.
    """
    arguments = list(arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
        logging.getLogger("hpc_lpm").setLevel(logging.DEBUG)
    try:
        if register is not None:
            register(arguments)
        command = typer.main.get_command(app)
        check_arguments(command, arguments)
        result = command.main(
            args=arguments or ["--help"], prog_name="hpc-lpm", standalone_mode=False
        )
    except (Exception, KeyboardInterrupt) as error:
        if debug and not isinstance(error, _OF_A_RUN):
            raise
        return _tell(error, arguments, debug=debug)
    return result if isinstance(result, int) else EXIT_DONE


_OF_A_RUN = (TrainingError, InterruptedTrainingError, typer.TyperException, typer.Abort)
"""Errors that are told in a sentence with `--debug` too."""


def _tell(error: BaseException, arguments: Sequence[str], *, debug: bool) -> int:
    """Tell of an error in a sentence, and return the exit code."""
    sentence, picture, code = None, "", EXIT_BAD_INPUT
    if isinstance(error, InterruptedTrainingError):
        sentence, code = str(error), EXIT_INTERRUPTED
    elif isinstance(error, TrainingError):
        if debug:
            traceback.print_exception(error)
        abort_ranks_after(partial(speak, str(error)), EXIT_NOT_HELD)
        return EXIT_NOT_HELD
    elif isinstance(error, InputError):
        sentence, picture = error.sentence, error.picture
    elif isinstance(error, OSError):
        sentence = _unusable(error)
    elif isinstance(error, MemoryError) or _OF_TORCHS_MEMORY in str(error):
        sentence = _out_of_memory(error)
    elif isinstance(error, typer.TyperException):
        sentence = _one_sentence(_message(error))
    elif isinstance(error, (typer.Abort, KeyboardInterrupt)):
        sentence = "interrupted at once: run the command again."
    if sentence is not None:
        complain(sentence, picture)
        return code
    abort_ranks_after(lambda: speak(explain(error, arguments)), EXIT_UNEXPECTED)
    return EXIT_UNEXPECTED


def _unusable(error: OSError) -> str | None:
    """Say which file cannot be used and why; None if that is no fault of the user's files."""
    if error.errno in _NO_ROOM and not error.filename:
        return (
            f"a file cannot be written ({error.strerror}): make room where results go and in the "
            f"folder of temporary files, {tempfile.gettempdir()}."
        )
    if error.errno not in _OF_THE_USERS_FILES or not error.filename:
        return None
    # Of a file that was to take the place of another, the other is what the user has named.
    named = error.filename2 or error.filename
    shown = os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else str(named)
    if error.errno == errno.ENAMETOOLONG:
        shown = f"{shown[:40]}..."
    return (
        f"{shown} cannot be used ({error.strerror}): name another file or folder, or mend this one."
    )


def _out_of_memory(error: BaseException) -> str:
    said = str(error).rpartition(f"{_OF_TORCHS_MEMORY}: ")[2].partition("\n")[0].rstrip(". ")
    return (
        f"there is not enough memory for what was asked for{f' ({said})' if said else ''}: name "
        "smaller sizes or files, or use a machine with more of it."
    )


def _message(error: typer.TyperException) -> str:
    """Say what Typer has refused; what is accepted in our words, and the value that was found."""
    message, cause = error.format_message(), error.__cause__
    if not isinstance(cause, ValidationError):
        return message
    option = message.partition(": ")[0]
    accepted = describe_validation_error(cause).partition(": ")[2]
    return f"{option}: {accepted}, found {cause.errors()[0]['input']!r}"


def _one_sentence(message: str) -> str:
    return f"{' '.join(message.split()).rstrip('.')}: see `hpc-lpm --help`."
