"""The job of ranks that one process plays."""

import pickle
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, TypeVar

from hpc_lpm.engine.one_process.turns import Turns
from hpc_lpm.native_waits import DEFAULT_LIMIT_SECONDS

Value = TypeVar("Value")

_FIRST_TAG = 100


class Board:
    """What ranks of one process leave for each other: messages, and values that all of them need.

    Args:
        turns: which the ranks take.
        size: how many ranks there are.
    """

    def __init__(self, turns: Turns[Any], size: int) -> None:
        self.turns = turns
        self.size = size
        self.boxes: defaultdict[object, deque[Any]] = defaultdict(deque)
        self.gathered: defaultdict[object, dict[int, Any]] = defaultdict(dict)
        self.shared: dict[int, Any] = {}

    def gather(self, key: object, place: int, value: Value, places: int) -> list[Value]:
        """Leave a value at one of the places of `key` and return those of all, in order.

        Each rank that has a place calls this once with this key, and waits for the others.
        """
        found: dict[int, Value] = self.gathered[key]
        found[place] = value
        self.turns.wait_for(lambda: len(found) == places)
        self.gathered.pop(key, None)
        return [found[number] for number in range(places)]


class PlayedJob:
    """One of the ranks that this process plays; see `Job`.

    What ranks tell each other is pickled, as between processes, so that none changes what another
    one holds.
    """

    communicator = None
    store = None

    def __init__(
        self, board: Board, rank: int, limit_seconds: float = DEFAULT_LIMIT_SECONDS
    ) -> None:
        self.board = board
        self.rank = rank
        self.size = board.size
        self.limit_seconds = limit_seconds
        self._next_tag = _FIRST_TAG
        self._gathered = self._made = 0

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        self.all_gather(None)

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""
        self._gathered += 1
        key = "gather", self._gathered
        found = self.board.gather(key, self.rank, pickle.dumps(value), self.size)
        return [pickle.loads(packed) for packed in found]

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        return self.all_gather(value if self.rank == 0 else None)[0]

    def once(self, make: Callable[[], Value]) -> Value:
        """Return what the first rank that calls this makes; all ranks share it."""
        self._made += 1
        if self._made not in self.board.shared:
            self.board.shared[self._made] = make()
        value: Value = self.board.shared[self._made]
        return value

    def own_tag(self) -> int:
        """Return a tag for messages that nothing else uses; every rank calls this alike."""
        self._next_tag += 1
        return self._next_tag

    def send(self, value: Any, rank: int, tag: int) -> None:
        """Leave a value for another rank."""
        self.board.boxes[self.rank, rank, tag].append(pickle.dumps(value))

    def arrived(self, rank: int, tag: int) -> bool:
        """Tell if a value from this rank is there, without waiting."""
        return bool(self.board.boxes[rank, self.rank, tag])

    def receive(self, rank: int, tag: int) -> Any:
        """Return the next value that this rank leaves."""
        box = self.board.boxes[rank, self.rank, tag]
        self.board.turns.wait_for(lambda: bool(box))
        return pickle.loads(box.popleft())
