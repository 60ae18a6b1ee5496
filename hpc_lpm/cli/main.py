"""Entry point: runs a command and turns errors into one sentence and an exit code."""

import sys

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.cli.quiet_end import end_ranks


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    register(arguments)
    exit_code = run_guarded(app, arguments)
    end_ranks(exit_code)
    sys.exit(exit_code)
