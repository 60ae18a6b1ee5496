"""Successive halving finds the best candidate within its budget; a clock that is played tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import pytest

from hpc_lpm.campaign.tuning.halving import Standing, halve, ranking


@dataclass
class Played:
    """Candidates whose trainings take played seconds; `log` has who trained in each round."""

    seconds: Sequence[float | str]
    now: float = 0.0
    log: list[list[int]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def measure(
        self, racing: Sequence[int], turns: int, seconds: float
    ) -> Mapping[int, Sequence[float] | str]:
        ends, found = self.now + seconds, dict[int, list[float] | str]()
        trained: list[int] = []
        for _ in range(turns):
            for number in racing:
                if self.now >= ends:
                    break
                taken = self.seconds[number]
                trained.append(number)
                if isinstance(taken, str):
                    found[number] = taken
                    continue
                self.now += taken
                before = found.get(number, [])
                assert not isinstance(before, str)
                found[number] = [*before, taken]
        self.log.append(trained)
        return found


def by_seconds(number: int, seconds: float) -> tuple[float, ...]:
    return (seconds,)


def search(seconds: Sequence[float | str], budget: float) -> tuple[Played, list[Standing]]:
    played = Played(seconds)
    return played, halve(len(seconds), played.measure, by_seconds, budget, played.clock)


@pytest.mark.parametrize("best", range(6))
def test_the_fastest_candidate_wins_wherever_it_stands(best: int) -> None:
    seconds = [1.0 + 0.1 * n for n in range(6)]
    seconds[best] = 0.5
    _, standings = search(seconds, budget=100)
    assert ranking(standings, by_seconds)[0] == best


def test_every_round_trains_the_better_half_twice_as_often() -> None:
    played, _ = search([4, 3, 2, 1, 8, 7, 6, 5], budget=1000)
    assert played.log == [list(range(8)), [3, 2, 1, 0] * 2, [3, 2] * 4]


def test_the_first_round_takes_half_of_the_budget_and_the_most_promising_come_first() -> None:
    played, standings = search([10.0] * 10, budget=60)
    assert played.log[0] == [0, 1, 2]
    assert [n for n, each in enumerate(standings) if each.rounds] == [0, 1, 2]


@pytest.mark.parametrize("budget", [5, 20, 60, 200])
def test_the_budget_is_exceeded_by_one_training_at_most(budget: float) -> None:
    played, _ = search([3.0, 2.0, 4.0, 2.5, 3.5], budget=budget)
    assert played.now < budget + 4.0


def test_a_candidate_that_fails_is_never_trained_again_nor_chosen() -> None:
    played, standings = search(["it has no memory", 2.0, 3.0], budget=100)
    assert standings[0].failure == "it has no memory"
    assert all(0 not in trained for trained in played.log[1:])
    assert ranking(standings, by_seconds)[0] == 1


def test_nothing_is_chosen_where_all_candidates_fail() -> None:
    _, standings = search(["no", "no"], budget=10)
    assert ranking(standings, by_seconds) == []
    assert all(each.median_seconds == inf for each in standings)


def test_the_score_decides_instead_of_the_seconds_of_a_step() -> None:
    """Twice the steps to a target outweigh a step that is a third faster."""
    worth = [1.0, 2.0]

    def score(number: int, seconds: float) -> tuple[float, ...]:
        return (seconds * worth[number],)

    played = Played([3.0, 2.0])
    standings = halve(2, played.measure, score, 100, played.clock)
    assert ranking(standings, score)[0] == 0


def test_a_single_candidate_is_trained_once() -> None:
    played, standings = search([1.0], budget=100)
    assert played.log == [[0]]
    assert standings[0].rounds == 1
