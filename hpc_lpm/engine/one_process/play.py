"""Plays all ranks of a run in this process: what depth costs can be seen before nodes are there."""

from collections.abc import Callable
from typing import TypeVar

from hpc_lpm.engine.one_process.job import Board, PlayedJob
from hpc_lpm.engine.one_process.turns import Turns
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan
from hpc_lpm.ranks import agreed_claim

Value = TypeVar("Value")

MOST_PLAYED = 1024


def ranks_to_play(settings: TrainSettings) -> int:
    """Return how many ranks this process is to play, 0 if it is one rank itself.

    Raises:
        InputError: if a launcher has started several processes, or the number is not known.
    """
    if not getattr(settings.own, "in_one_process", False):
        return 0
    claim = agreed_claim()
    if claim is not None and claim.size > 1:
        raise InputError(
            f"--in-one-process was given, but {claim.size} processes were started: start one, "
            "without mpirun, or leave it out."
        )
    ranks: int | None = getattr(settings.own, "ranks", None)
    if ranks is None and settings.plan is None:
        raise InputError(
            "--in-one-process was given without --plan, so that nothing tells the number of "
            "stages: give a plan made by `hpc-lpm plan`, or --ranks N for one that is made for N "
            "ranks."
        )
    if ranks is None:
        assert settings.plan is not None
        ranks = Plan.read(settings.plan).devices
    if ranks > MOST_PLAYED:
        raise InputError(
            f"--in-one-process is to play {ranks} ranks, accepted are up to {MOST_PLAYED:,}, each "
            "of which takes a thread: play fewer, or start them with mpirun."
        )
    return ranks


def play_ranks(ranks: int, limit_seconds: float, part: Callable[[PlayedJob], Value]) -> list[Value]:
    """Call `part` for each rank, in turn, and return what the calls return, in rank order.

    Raises:
        BaseException: what the first rank that failed has raised.
    """
    turns: Turns[Value] = Turns(ranks)
    board = Board(turns, ranks)
    return turns.play(lambda rank: part(PlayedJob(board, rank, limit_seconds)))
