"""Run under mpirun -n 2 over TCP: a large message while neither side calls into MPI.

    progress_program.py {with,without}

Rank 1 writes to stdout, as JSON, what it found.
"""

import json
import sys
import time
from contextlib import nullcontext

import torch
from mpi4py import MPI

from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.transport.mpi import MpiChannel
from hpc_lpm.engine.pipeline.transport.progress_thread import NoProgress, ProgressThread

LENGTH = 32 * 2**20
AWAY_SECONDS = 3.0
IDLE_SECONDS = 2.0
CONNECT, LARGE = 1, 2


def cpu_share(seconds: float) -> float:
    start = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - start) / seconds


def main() -> None:
    comm = MPI.COMM_WORLD
    rank = comm.Get_rank()
    wanted = sys.argv[1] == "with"
    with ProgressThread(comm) if wanted else nullcontext(NoProgress()) as progress:
        channel = MpiChannel(comm, 1 - rank, LARGE, receive_timeout_seconds=60, progress=progress)
        # The connection is made by the first message and not what is looked at.
        comm.sendrecv(rank, 1 - rank, CONNECT, source=1 - rank, recvtag=CONNECT)
        idle_share = cpu_share(IDLE_SECONDS)
        message = torch.arange(LENGTH, dtype=torch.uint8)
        if rank == 0:
            comm.Barrier()
            channel.send((message,))
            time.sleep(AWAY_SECONDS)
            channel.flush()
        else:
            channel.expect([BoundarySpec.of(message).tensors])
            memory = channel._posted[0].tensors[0]
            memory.zero_()
            # Only now may the message come: on a loaded machine it would else be wiped in part.
            comm.Barrier()
            time.sleep(AWAY_SECONDS)
            # Nothing of MPI was called on this thread since the message was sent.
            arrived = float((memory == message).float().mean())
            whole = torch.equal(channel.receive()[0], message)
            channel.expect([BoundarySpec.of(torch.zeros(1)).tensors])
            waiting_share = cpu_share(IDLE_SECONDS)
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
