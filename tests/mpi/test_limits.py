"""No wait outside the steady state outlasts the run's limit; each ends in a sentence."""

from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("barrier", "rank 1: not all 2 ranks came to a barrier within 1 s"),
        ("gathering", "rank 1: not all 2 ranks came to a barrier within 1 s"),
        ("broadcast", "rank 1: not all 2 ranks came to a barrier within 1 s"),
        ("group", "rank 1: not all 2 ranks came to a barrier within 1 s"),
        ("new group", "rank 1: the ranks cannot form a process group within 1 s"),
        ("probe", "stage 1 (rank 1), probe of 4 zero samples before training: no word from rank 0"),
        ("agreement", "no word from rank 0 for 1 s: it, or a stage behind it, hangs or is gone"),
        ("connection", "rank 1: the stages cannot be connected over gloo within 1 s"),
    ],
)
def test_a_rank_that_stays_away_ends_the_wait_with_a_sentence(where: str, said: str) -> None:
    program = str(Path(__file__).with_name("limits_program.py"))
    done = mpirun(2, program, where, timeout_seconds=120)
    assert done.returncode == 5, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if " s: " in line]
    seconds, _, sentence = line.partition(" s: ")
    assert sentence.startswith(said), line
    assert sentence.endswith("."), line
    assert 0.9 < float(seconds) < 20
