"""Entry point: runs a command and turns errors into one sentence and an exit code."""

import gc
import sys

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.cli.lossy_output import make_output_lossy
from hpc_lpm.cluster.roll_call import answer_roll_call
from hpc_lpm.engine.quiet_end import end_before_training, end_ranks
from hpc_lpm.launcher_watch import watch_launcher
from hpc_lpm.stop_signals import STOP_SIGNALS


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    answer_roll_call()
    watch_launcher()
    # A training is not lost over a line that cannot be printed.
    make_output_lossy(any_fault=arguments[:1] in (["train"], ["campaign"]))
    if arguments[:1] == ["train"]:
        # Before torch is imported, which takes seconds.
        STOP_SIGNALS.end_process_by(end_before_training)
        STOP_SIGNALS.install()
    exit_code = run_guarded(app, arguments, _register_quickly)
    end_ranks(exit_code)
    sys.exit(exit_code)


def _register_quickly(arguments: list[str]) -> None:
    """Register the commands without a search for garbage among the modules that they import.

    Modules are no garbage: looking for some while they are imported, and among them ever after,
    would take a quarter of the time in which a rank starts.
    """
    gc.disable()
    try:
        register(arguments)
    finally:
        gc.freeze()
        gc.enable()
