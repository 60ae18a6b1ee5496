"""Ranks that one process plays take turns, whatever the timing."""

import random
import threading
import time
from collections.abc import Callable

import pytest

from hpc_lpm.engine.one_process.turns import LeftAlone, Turns

RANKS = 4
Play = tuple[list[str], list[int]]


def passing_round(turns: Turns[int], pause: Callable[[], None], log: list[str]) -> Callable:
    """Let ranks do two things a round, and wait in every round for the rank before them."""
    rounds = [0] * RANKS

    def part(rank: int) -> int:
        for number in range(5):
            log.append(f"{rank} begins {number}")
            pause()
            log.append(f"{rank} ends {number}")
            rounds[rank] += 1
            turns.wait_for(lambda: rank == 0 or rounds[rank - 1] > rounds[rank])
            pause()
            rounds[0] += rank == RANKS - 1
        rounds[rank] = 100
        return 10 * rank

    return part


def played(seed: int | None) -> Play:
    generator = random.Random(seed)

    def pause() -> None:
        if seed is not None:
            time.sleep(generator.choice([0.0, 0.001, 0.003]))

    turns: Turns[int] = Turns(RANKS)
    log: list[str] = []
    return log, turns.play(passing_round(turns, pause, log))


def test_one_rank_runs_at_a_time_in_an_order_that_does_not_depend_on_timing() -> None:
    log, results = played(None)
    assert results == [0, 10, 20, 30]
    assert len(log) == 2 * 5 * RANKS
    for begun, ended in zip(log[::2], log[1::2], strict=True):
        assert begun.replace("begins", "ends") == ended
    assert {tuple(played(seed)[0]) for seed in range(3)} == {tuple(log)}


def test_a_rank_goes_on_without_a_pause_where_it_need_not_wait() -> None:
    turns: Turns[None] = Turns(2)
    log: list[int] = []

    def part(rank: int) -> None:
        for _ in range(3):
            log.append(rank)
            turns.wait_for(lambda: True)

    turns.play(part)
    assert log == [0, 0, 0, 1, 1, 1]


def test_every_rank_has_a_thread_of_its_own() -> None:
    turns: Turns[int] = Turns(3)
    found = turns.play(lambda _: threading.get_ident())
    assert len({*found, threading.get_ident()}) == 4


def test_what_the_first_rank_to_fail_raises_comes_out_and_others_go_on_to_their_ends() -> None:
    turns: Turns[None] = Turns(4)
    seen: list[str] = []

    def part(rank: int) -> None:
        if rank == 1:
            turns.wait_for(lambda: "third is through" in seen)
            raise ValueError("failed second")
        if rank == 2:
            seen.append("third is through")
            turns.wait_for(lambda: "never" in seen)
        if rank == 3:
            turns.wait_for(lambda: "third is through" in seen)
            seen.append("fourth is through")
            raise ValueError("failed first")
        seen.append("first is through")

    with pytest.raises(ValueError, match="failed first"):
        turns.play(part)
    assert seen == ["first is through", "third is through", "fourth is through"]


def test_a_rank_whose_partner_has_failed_is_left_alone_and_may_clean_up() -> None:
    turns: Turns[str] = Turns(2)
    cleaned: list[int] = []

    def part(rank: int) -> str:
        if rank == 1:
            raise KeyError("gone")
        try:
            turns.wait_for(lambda: False)
        except LeftAlone:
            cleaned.append(rank)
            raise
        return "done"

    with pytest.raises(KeyError, match="gone"):
        turns.play(part)
    assert cleaned == [0]


def test_ranks_that_all_wait_for_each_other_are_left_alone() -> None:
    turns: Turns[None] = Turns(3)
    with pytest.raises(LeftAlone):
        turns.play(lambda _: turns.wait_for(lambda: False))


def test_an_interruption_of_one_rank_comes_out_as_it_is() -> None:
    turns: Turns[None] = Turns(2)

    def part(rank: int) -> None:
        if rank == 1:
            raise KeyboardInterrupt
        turns.wait_for(lambda: False)

    with pytest.raises(KeyboardInterrupt):
        turns.play(part)
