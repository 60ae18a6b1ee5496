"""Lets the ranks that one process plays take turns: one runs until it has to wait for another."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LeftAlone(Exception):  # noqa: N818 - it is no error of this rank
    """What this rank waits for will never come: other ranks have failed, or all wait."""


@dataclass
class _Seat:
    """Where one rank is: `ready` tells if what it waits for is there, None while it runs."""

    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ready: Callable[[], bool] | None = None
    has_ended: bool = False
    is_left_alone: bool = False


class Turns(Generic[Value]):
    """Runs one function for each of several ranks, one at a time.

    Every rank has a thread, since much of torch's state (whether gradients are recorded, autocast,
    hooks on what a graph saves) belongs to threads. The turn passes on only in `wait_for`, to the
    next rank in order that can go on, so that what happens does not depend on timing.

    Args:
        ranks: how many there are.
    """

    def __init__(self, ranks: int) -> None:
        self._seats = [_Seat() for _ in range(ranks)]
        self._rank = threading.local()
        self._results: dict[int, Value] = {}
        self._error: BaseException | None = None
        self._all_ended = threading.Event()

    def play(self, part: Callable[[int], Value]) -> list[Value]:
        """Call `part` with the number of each rank, and return what the calls return.

        Raises:
            BaseException: what the first call that failed has raised. Ranks that wait for what will
                not come any more are left by a `LeftAlone`; the others go on to their ends.
        """
        for rank in range(len(self._seats)):
            name = f"rank {rank}"
            threading.Thread(target=self._run, args=(part, rank), name=name, daemon=True).start()
        self._seats[0].turn.release()
        self._all_ended.wait()
        if self._error is not None:
            raise self._error
        return [self._results[rank] for rank in range(len(self._seats))]

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Let other ranks run until `ready` returns True; called by the rank that runs.

        Raises:
            LeftAlone: if no rank can go on any more.
        """
        if ready():
            return
        seat = self._seats[self._rank.number]
        seat.ready = ready
        self._pass_on(self._rank.number)
        seat.turn.acquire()
        seat.ready = None
        if seat.is_left_alone:
            raise LeftAlone

    def _run(self, part: Callable[[int], Value], rank: int) -> None:
        seat = self._seats[rank]
        seat.turn.acquire()
        self._rank.number = rank
        try:
            self._results[rank] = part(rank)
        except BaseException as error:
            self._error = self._error or error
        seat.has_ended = True
        self._pass_on(rank)

    def _pass_on(self, rank: int) -> None:
        """Give the turn to the next rank that can go on, which may be this one again."""
        size = len(self._seats)
        waiting = [self._seats[(rank + 1 + i) % size] for i in range(size)]
        waiting = [seat for seat in waiting if not seat.has_ended]
        if not waiting:
            self._all_ended.set()
            return
        for seat in waiting:
            if seat.ready is None or seat.ready():
                seat.turn.release()
                return
        waiting[0].is_left_alone = True
        waiting[0].turn.release()
