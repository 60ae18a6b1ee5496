"""Starting MPI, which importing mpi4py does: over the right network, and within a time limit."""

import sys
from contextlib import nullcontext
from typing import Any

from hpc_lpm.interfaces import choose_interface, without_network
from hpc_lpm.native_waits import bounded_by_child
from hpc_lpm.ranks import rank_from_environment, ranks_from_environment, spans_nodes


def start_mpi(limit_seconds: float) -> Any:
    """Import mpi4py's MPI, which starts it unless it has been started, and return the module.

    If it takes longer than the limit, the process is ended with a sentence.
    """
    started = "mpi4py.MPI" in sys.modules
    several_nodes = spans_nodes()
    if not started and several_nodes:
        choose_interface()
    limit = bounded_by_child(limit_seconds, rank_from_environment(), "the start of MPI")
    alone = nullcontext() if several_nodes else without_network(ranks_from_environment())
    with alone, nullcontext() if started else limit:
        from mpi4py import MPI
    return MPI
