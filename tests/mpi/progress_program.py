"""Run under mpirun -n 2 over TCP: a large message while neither side calls into MPI.

    progress_program.py {with,without} FILE

Rank 1 writes to stdout, as JSON, what it found. It makes FILE once it need not wait any longer.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from mpi4py import MPI

from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.transport.mpi import MpiChannel
from hpc_lpm.engine.pipeline.transport.progress_thread import NoProgress, ProgressThread

LENGTH = 32 * 2**20
AWAY_SECONDS, PATIENCE_SECONDS = 3.0, 60.0
"""For how long a message may stall if it does so, and to come if it comes."""
IDLE_SECONDS, WINDOWS = 0.25, 8
CONNECT, LARGE = 1, 2


def cpu_share() -> float:
    """Return the smallest share of several spans: others make instructions slower at times."""
    shares = []
    for _ in range(WINDOWS):
        start = time.process_time()
        time.sleep(IDLE_SECONDS)
        shares.append((time.process_time() - start) / IDLE_SECONDS)
    return min(shares)


def main() -> None:
    comm = MPI.COMM_WORLD
    rank = comm.Get_rank()
    wanted, found_out = sys.argv[1] == "with", Path(sys.argv[2])

    def stay_away(over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + (PATIENCE_SECONDS if wanted or rank == 0 else AWAY_SECONDS)
        while not over() and time.monotonic() < deadline:
            time.sleep(0.05)

    with ProgressThread(comm) if wanted else nullcontext(NoProgress()) as progress:
        channel = MpiChannel(comm, 1 - rank, LARGE, receive_timeout_seconds=60, progress=progress)
        # The connection is made by the first message and not what is looked at.
        comm.sendrecv(rank, 1 - rank, CONNECT, source=1 - rank, recvtag=CONNECT)
        idle_share = cpu_share()
        message = torch.arange(LENGTH, dtype=torch.uint8)
        if rank == 0:
            comm.Barrier()
            channel.send((message,))
            stay_away(found_out.exists)
            channel.flush()
        else:
            channel.expect([BoundarySpec.of(message).tensors])
            memory = channel._posted[0].tensors[0]
            memory.zero_()
            # Only now may the message come: on a loaded machine it would else be wiped in part.
            comm.Barrier()
            stay_away(lambda: wanted and torch.equal(memory, message))
            # Nothing of MPI was called on this thread since the message was sent.
            arrived = float((memory == message).float().mean())
            found_out.touch()
            whole = torch.equal(channel.receive()[0], message)
            channel.expect([BoundarySpec.of(torch.zeros(1)).tensors])
            waiting_share = cpu_share()
            comm.send(None, 0, CONNECT)
            channel.receive()
            found = {
                "arrived": arrived,
                "whole": whole,
                "idle_share": idle_share,
                "waiting_share": waiting_share,
            }
            sys.stdout.write(json.dumps(found) + "\n")
        if rank == 0:
            comm.recv(source=1, tag=CONNECT)
            channel.send((torch.zeros(1),))
            channel.flush()


main()
