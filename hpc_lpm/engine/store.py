"""The store of torch at which ranks meet, which listens on one address instead of on all.

A store takes commands from whoever connects. torch opens it on every interface of a node; it is
given a socket here that listens where the ranks of the job are.
"""

import socket
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore

_WAITING_CONNECTIONS = 2048


def open_bound_store(
    host: str, port: int, limit: timedelta, *, listen_at: str | None, ranks: int | None = None
) -> TCPStore:
    """Open the store of a job, as its first rank does.

    Args:
        host: what the other ranks call this node.
        port: where it listens, 0 for any port that is free.
        limit: how long its operations may take.
        listen_at: the address of this node to which it is bound; None stands for all.
        ranks: how many ranks to wait for; without it nobody is waited for.

    Raises:
        OSError: if the port is taken; torch has errors of its own for that (DistNetworkError).
    """
    if listen_at is None:
        return TCPStore(host, port, ranks, True, limit, wait_for_workers=ranks is not None)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((listen_at, port))
        listener.listen(_WAITING_CONNECTIONS)
        port = listener.getsockname()[1]
        return TCPStore(
            host,
            port,
            ranks,
            True,
            limit,
            wait_for_workers=ranks is not None,
            master_listen_fd=listener.detach(),  # the store closes it
        )
