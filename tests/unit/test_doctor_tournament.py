"""Every pair of players meets once, and nobody plays two games at the same time."""

from itertools import combinations

import pytest

from hpc_lpm.doctor.link_probe import tournament_rounds


@pytest.mark.parametrize("players", range(18))
def test_every_pair_meets_once_in_the_fewest_rounds(players: int) -> None:
    rounds = list(tournament_rounds(players))
    assert sorted(pair for pairs in rounds for pair in pairs) == list(
        combinations(range(players), 2)
    )
    if players > 1:
        assert len(rounds) == players - 1 + players % 2
    for pairs in rounds:
        busy = [player for pair in pairs for player in pair]
        assert len(busy) == len(set(busy))


def test_the_first_rounds_of_six_are_those_of_the_picture() -> None:
    first, second, third, *_ = tournament_rounds(6)
    assert first == ((0, 5), (1, 4), (2, 3))
    assert second == ((0, 4), (3, 5), (1, 2))
    assert third == ((0, 3), (2, 4), (1, 5))
