"""Stragglers: ranks that live, but hold up the others because their passes take too long.

Stages are not equal, so a rank is compared with itself: with the passes that took it least time
earlier in the run. At drains it is also compared with the other ranks, for a rank may have been
slow from the start: under data parallelism directly, and with a plan by how much longer each takes
than planned. No rank sends a message a step for this.
"""

import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hpc_lpm.engine.records import COMPUTING, Straggle

SLOW, NO_LONGER_SLOW = 1.5, 1.25
"""A rank is slow from the one factor on, and no longer below the other; noise is at 0.8 to 1.2."""
SLOWER_THAN_PLANNED = 2.0
"""Likewise for a comparison by planned times, which differ from the real ones by themselves."""
SECONDS, BLOCKS = 10.0, 5
"""For how long, and in how many parts of that time in a row, a rank must be slow."""
_BLOCKS_TO_JUDGE, _BLOCKS_OF_A_PACE = 3, 15
"""How many blocks a rank must have trained to be judged, and of how many the medians are a pace."""
BEFORE = "before"
OTHERS = "those of the other ranks"
PLANNED = "planned, compared with the other ranks"
_LEAST_BUSY = 0.5
"""A rank that computes for less than this share of the time does not hold up others."""


@dataclass
class PassTimes:
    """What passes and updates took, by kind.

    Attributes:
        seconds: of all passes of a kind.
        counts: how many there were.
        elapsed_seconds: of training, waiting included.
        first_step: in which they began.
        steps: how many steps have ended.
    """

    first_step: int = 0
    steps: int = 0
    elapsed_seconds: float = 0.0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, seconds: float) -> None:
        """Add one pass."""
        self.seconds[kind] += seconds
        self.counts[kind] += 1

    def add_all(self, later: "PassTimes") -> None:
        """Add those of the steps that came next."""
        self.steps += later.steps
        self.elapsed_seconds += later.elapsed_seconds
        for kind, seconds in later.seconds.items():
            self.seconds[kind] += seconds
        self.counts.update(later.counts)

    @property
    def mean_seconds(self) -> dict[str, float]:
        """Seconds of one pass by kind."""
        return {kind: self.seconds[kind] / count for kind, count in self.counts.items()}

    def factor(self, typical: Mapping[str, float]) -> float:
        """Return how many times as long these passes took as they typically do."""
        kinds = [kind for kind in self.counts if typical.get(kind)]
        expected = sum(self.counts[kind] * typical[kind] for kind in kinds)
        return sum(self.seconds[kind] for kind in kinds) / expected if expected else 1.0


class Pace:
    """Judges on one rank, block by block, if its passes have become slow.

    A block is made of the steps of two seconds, or of one step that takes longer. Five slow blocks
    in a row make the rank a straggler, so that neither jitter nor one long interruption does; five
    that are not slow end that.

    Args:
        rank: of this process.
        tell: called with a sentence when the rank becomes a straggler, and when it no longer is.
        steps_before: the optimizer steps of the run that are done.
        seconds: for how long a rank must be slow.
    """

    def __init__(
        self,
        rank: int,
        tell: Callable[[str], None],
        *,
        steps_before: int = 0,
        seconds: float = SECONDS,
    ) -> None:
        self.straggles: list[Straggle] = []
        self._rank = rank
        self._tell = tell
        self._seconds = seconds
        self._block = PassTimes(steps_before)
        self._uncompared = PassTimes(steps_before)
        self._warmed_up = False
        self._learning: list[dict[str, float]] = []
        self._learned: dict[str, float] = {}
        self._slow: list[PassTimes] = []
        self._not_slow: list[PassTimes] = []
        self._beside_itself: Straggle | None = None
        self._beside_others: Straggle | None = None

    def add(self, kind: str, seconds: float) -> None:
        """Take note of what one pass, or one update, took."""
        if kind in COMPUTING:
            self._block.add(kind, seconds)

    def end_step(self, step: int, seconds: float) -> None:
        """Take note that a step has ended, so many seconds after the one before."""
        block = self._block
        block.steps += 1
        block.elapsed_seconds += seconds
        if block.elapsed_seconds >= self._seconds / BLOCKS:
            self._block = PassTimes(step + 1)
            self._uncompared.add_all(block)
            self._judge(block)

    def _judge(self, block: PassTimes) -> None:
        if not self._warmed_up:  # memory was allocated, and code compiled
            self._warmed_up = True
            return
        factor = block.factor(self._typical_seconds())
        if self._beside_itself is not None:
            self._go_on(self._beside_itself, block, factor)
        elif factor >= SLOW:
            self._slow.append(block)
            if len(self._slow) == BLOCKS:
                factors = [each.factor(self._typical_seconds()) for each in self._slow]
                seconds = sum(each.elapsed_seconds for each in self._slow)
                self._beside_itself = self._begin(
                    statistics.fmean(factors), self._slow[0].first_step, seconds, BEFORE
                )
                self._slow.clear()
        else:
            self._slow.clear()
            self._learn(block)

    def _typical_seconds(self) -> dict[str, float]:
        """Return what a pass takes by kind, which is empty until enough is known."""
        if self._learned or len(self._learning) < _BLOCKS_TO_JUDGE:
            return self._learned
        return _medians(self._learning)

    def _learn(self, block: PassTimes) -> None:
        """Hold later passes to the fastest pace that has lasted."""
        self._learning.append(block.mean_seconds)
        if len(self._learning) == _BLOCKS_OF_A_PACE:
            found = _medians(self._learning)
            self._learning.clear()
            fastest = {
                kind: min(time, self._learned.get(kind, time)) for kind, time in found.items()
            }
            self._learned |= fastest

    def _go_on(self, straggle: Straggle, block: PassTimes, factor: float) -> None:
        if factor >= NO_LONGER_SLOW:
            self._not_slow.clear()
            straggle.seconds += block.elapsed_seconds
            weight = block.elapsed_seconds / straggle.seconds
            straggle.factor += weight * (factor - straggle.factor)
            return
        self._not_slow.append(block)
        if len(self._not_slow) == BLOCKS:
            self._end(straggle, self._not_slow[0].first_step)
            self._beside_itself = None
            self._not_slow.clear()

    def _begin(self, factor: float, step: int, seconds: float, beside: str) -> Straggle:
        found = Straggle(
            rank=self._rank,
            host=platform.node(),
            factor=factor,
            beside=beside,
            from_step=step,
            seconds=seconds,
        )
        self.straggles.append(found)
        self._tell(found.beginning())
        return found

    def _end(self, straggle: Straggle, step: int) -> None:
        straggle.to_step = step
        self._tell(straggle.end())

    def times_to_compare(self) -> PassTimes:
        """Return what passes took since ranks were last compared, in whole blocks."""
        return self._uncompared

    def compare(self, of_ranks: Sequence[PassTimes], planned_seconds: Sequence[float]) -> None:
        """Judge this rank beside the others, once all have trained for long enough.

        Args:
            of_ranks: what `times_to_compare` has returned on every rank.
            planned_seconds: what each rank should take for one micro-batch; empty if all should
                take as long.
        """
        if min(times.elapsed_seconds for times in of_ranks) < self._seconds:
            return
        own = of_ranks[self._rank]
        self._uncompared = PassTimes(own.first_step + own.steps)
        factor = factors_beside_others(of_ranks, planned_seconds)[self._rank]
        limit = SLOWER_THAN_PLANNED if planned_seconds else SLOW
        straggle = self._beside_others
        if straggle is not None:
            if factor >= NO_LONGER_SLOW:
                straggle.seconds += own.elapsed_seconds
            else:
                self._end(straggle, own.first_step)
                self._beside_others = None
        elif self._beside_itself is None and factor >= limit:
            beside = PLANNED if planned_seconds else OTHERS
            self._beside_others = self._begin(factor, own.first_step, own.elapsed_seconds, beside)


def _medians(blocks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    kinds = {kind for means in blocks for kind in means}
    return {
        kind: statistics.median(means[kind] for means in blocks if kind in means) for kind in kinds
    }


def factors_beside_others(
    of_ranks: Sequence[PassTimes], planned_seconds: Sequence[float]
) -> list[float]:
    """Return how many times as long each rank takes as the others, by what each should take.

    A rank that waits for most of the time holds up nobody: its factor is 1.
    """
    slowness = []
    for rank, times in enumerate(of_ranks):
        kinds = COMPUTING if planned_seconds else ("load", "forward")
        busy = sum(times.seconds[kind] for kind in kinds)
        count = times.counts["forward"] * (planned_seconds[rank] if planned_seconds else 1.0)
        slowness.append(busy / count if count else 0.0)
    factors = []
    for rank, own in enumerate(slowness):
        others = statistics.median([*slowness[:rank], *slowness[rank + 1 :]] or [own])
        times = of_ranks[rank]
        busy = sum(times.seconds.values())
        holds_up = busy >= _LEAST_BUSY * times.elapsed_seconds
        factors.append(own / others if others and holds_up else 1.0)
    return factors
