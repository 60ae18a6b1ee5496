"""Run under mpirun: ranks that stay up and run one program after the other, as asked.

    rank_server.py FOLDER

Each rank reads requests from the pipe FOLDER/rank-R, a line of JSON each: {number, arguments}, of
which the first is a program of this folder. Once all ranks have run it to its end, rank 0 makes
FOLDER/done-NUMBER. A program that fails ends all ranks; so does the end of the pipe.
"""

import json
import runpy
import signal
import sys
from pathlib import Path

from mpi4py import MPI

from hpc_lpm.stop_signals import STOPPING


def serve(folder: Path) -> None:
    world = MPI.COMM_WORLD
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    # Ranks that wait for a request sleep in this read: they take no core away from other tests.
    with (folder / f"rank-{world.rank}").open() as requests:
        for line in requests:
            request = json.loads(line)
            sys.argv = request["arguments"]
            runpy.run_path(sys.argv[0], run_name="__main__")
            for number, handler in handlers.items():
                signal.signal(number, handler)
            world.Barrier()
            if world.rank == 0:
                (folder / f"done-{request['number']}").touch()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
