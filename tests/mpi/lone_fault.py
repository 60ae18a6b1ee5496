"""Run under mpirun: only the rank named first meets bad input, the others wait for it in a barrier.

lone_fault.py RANK {before,after}    before or after MPI has started
"""

import sys
import time

import typer

from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.quiet_end import end_ranks
from hpc_lpm.errors import InputError
from hpc_lpm.ranks import rank_from_environment

app = typer.Typer()


@app.callback()
def toolkit() -> None:
    """As the toolkit has: with it, the only command keeps its name."""


@app.command()
def meet() -> None:
    faulty = rank_from_environment() == int(sys.argv[1])
    if sys.argv[2] == "after":
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
    if faulty:
        raise InputError("plan p.json cannot be read: give this node access to it.")
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    time.sleep(60)  # not reached: the faulty rank never comes


code = run_guarded(app, ["meet"])
end_ranks(code)
sys.exit(code)
