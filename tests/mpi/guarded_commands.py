"""Run under mpirun: runs every command of a JSON file as the command line would, on all ranks.

    guarded_commands.py COMMANDS OUT

Starting ranks takes longer than refusing bad input, so all commands share them. OUT gets, for each
command, every rank's exit code, what it wrote, and whether it has met the others at the end of
each of its refusals.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from mpi4py import MPI

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.data import fashion_mnist
from hpc_lpm.engine import quiet_end

meetings: list[bool] = []
"""Whether the other ranks came, each time that this one waited for them to stop as well."""
others_stopped_too = quiet_end.others_stopped_too


def noted_meeting() -> bool:
    meetings.append(others_stopped_too())
    return meetings[-1]


def run(arguments: list[str]) -> dict[str, object]:
    """Run one command on this rank."""
    written = io.StringIO()
    meetings.clear()
    start = time.monotonic()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(written):
        code = run_guarded(app, arguments)
    return {
        "code": code,
        "written": written.getvalue(),
        "met": all(meetings),
        "seconds": time.monotonic() - start,
    }


def main() -> None:
    # On this machine nobody installed the data for all users.
    fashion_mnist.DEBIAN_FOLDER = Path("/not/installed")
    quiet_end.others_stopped_too = noted_meeting
    world = MPI.COMM_WORLD
    register([])
    commands = json.loads(Path(sys.argv[1]).read_text())
    outcomes = [world.allgather(run(arguments)) for arguments in commands]
    if world.rank == 0:
        Path(sys.argv[2]).write_text(json.dumps(outcomes))


main()
