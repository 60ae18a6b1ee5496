"""No wait outside the steady state outlasts the run's limit; each ends in a sentence."""

from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi

LAUNCHES = (
    ("group", "barrier", "gathering", "broadcast", "agreement", "rehearsal", "connection"),
    ("new group",),
)


@pytest.fixture(scope="module")
def waits() -> dict[str, tuple[float, str]]:
    """How long each wait took and what was said at its end."""
    program = str(Path(__file__).with_name("limits_program.py"))
    found = {}
    for waits in LAUNCHES:
        done = mpirun(2, program, *waits, timeout_seconds=120)
        assert done.returncode == 5, done.stdout + done.stderr
        for line in done.stdout.splitlines():
            if " s: " in line:
                where, seconds, sentence = line.split(": ", 2)
                assert where not in found
                found[where] = float(seconds.removesuffix(" s")), sentence
    return found


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("barrier", "rank 1: not all 2 ranks reached a barrier within 1 s"),
        ("gathering", "rank 1: not all 2 ranks reached a barrier within 1 s"),
        ("broadcast", "rank 1: not all 2 ranks reached a barrier within 1 s"),
        ("group", "rank 1: not all 2 ranks reached a barrier within 1 s"),
        ("new group", "rank 1: the ranks cannot form a process group within 1 s"),
        (
            "rehearsal",
            "stage 1 (rank 1), rehearsal of training with 2 samples: no word from",
        ),
        ("agreement", "no word from rank 0 for 1 s: it, or a stage behind it, hangs or is gone"),
        ("connection", "rank 1: the stages cannot be connected over gloo within 1 s"),
    ],
)
def test_a_rank_that_stays_away_ends_the_wait_with_a_sentence(
    where: str, said: str, waits: dict[str, tuple[float, str]]
) -> None:
    seconds, sentence = waits[where]
    assert sentence.startswith(said), sentence
    assert sentence.endswith("."), sentence
    assert 0.9 < seconds < 20
