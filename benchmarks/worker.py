"""Times calls in a process of their own, which can be ended and whose memory can be measured."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch

from hpc_lpm.engine.rank_meter import PeakMemory

PRELOADED = ["benchmarks.planner_figure", "benchmarks.planner_growth", "benchmarks.planner_rivals"]
"""The modules that children find imported, which are all that the main module imports."""


@dataclass(frozen=True)
class Timed:
    """The result of a call, its wall time, and its peak memory above what was held before."""

    result: Any
    seconds: float
    peak_bytes: int


class Worker:
    """A process that does `solve(prepare(*arguments))` on demand and times `solve` alone.

    Both must be functions of a module. They are first called with the arguments `warm_up`, which is
    not timed.
    """

    def __init__(
        self,
        prepare: Callable[..., Any],
        solve: Callable[[Any], Any],
        warm_up: tuple[Any, ...],
    ) -> None:
        # Forking from a small process that has imported everything is cheap and shares no state.
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, prepare, solve, warm_up), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def time(self, *arguments: Any, limit_seconds: float) -> Timed | None:
        """Return the timed call, or end the process and return None after `limit_seconds`."""
        self._connection.send(arguments)
        if self._connection.poll(limit_seconds):
            return self._connection.recv()
        self.close()
        return None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(
    connection: Connection,
    prepare: Callable[..., Any],
    solve: Callable[[Any], Any],
    warm_up: tuple[Any, ...],
) -> None:
    solve(prepare(*warm_up))
    # Imported objects live as long as the process, so that no collection need look at them again.
    gc.collect()
    gc.freeze()
    connection.send("ready")
    while True:
        problem = prepare(*connection.recv())
        gc.collect()
        memory = PeakMemory(torch.device("cpu"))
        began = time.perf_counter()
        result = solve(problem)
        seconds = time.perf_counter() - began
        connection.send(Timed(result, seconds, memory.peak_bytes()))
