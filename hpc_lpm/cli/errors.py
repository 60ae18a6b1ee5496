"""Exit codes and the one sentence that a user sees when something is wrong."""

import logging
import sys
from collections.abc import Sequence

import typer

from hpc_lpm.cli.quiet_end import others_stopped_too
from hpc_lpm.errors import InputError
from hpc_lpm.ranks import rank_from_environment

EXIT_DONE = 0
EXIT_NOT_HELD = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75


def run_guarded(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run `app` and return its exit code.

    Bad usage and `InputError` become one sentence on stderr and code 2. Every rank finds the same
    fault in the same input, so only the first of a job speaks; a traceback comes with `--debug`.
    """
    arguments = list(arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
        logging.getLogger("hpc_lpm").setLevel(logging.DEBUG)
    try:
        result = typer.main.get_command(app).main(
            args=arguments or ["--help"], prog_name="hpc-lpm", standalone_mode=False
        )
    except InputError as error:
        if debug:
            raise
        return _complain(str(error))
    except typer.TyperException as error:
        return _complain(_one_sentence(error.format_message()))
    except (typer.Abort, KeyboardInterrupt):
        return _complain("interrupted before anything was saved: run the command again.")
    return result if isinstance(result, int) else EXIT_DONE


def _one_sentence(message: str) -> str:
    return f"{' '.join(message.split()).rstrip('.')}: see `hpc-lpm --help`."


def _complain(sentence: str) -> int:
    if others_stopped_too() and rank_from_environment() != 0:
        return EXIT_BAD_INPUT
    print(f"hpc-lpm: {sentence}", file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT
