"""Whom all wait for, from what every rank has written down."""

import pytest

from hpc_lpm.engine.watchdog import _blame


def told(**by_rank: int | str | None) -> dict[int, dict[str, object]]:
    """Return reports of ranks that wait for a rank, for all (None), or are busy (a text)."""
    return {
        int(name.removeprefix("r")): {
            "rank": int(name.removeprefix("r")),
            "host": "n1",
            "process": 7,
            "waiting": not isinstance(target, str),
            "waits_for": target if isinstance(target, int) else None,
            "doing": target,
        }
        for name, target in by_rank.items()
    }


@pytest.mark.parametrize(
    ("found", "ranks", "sentence"),
    [
        (told(r0=1, r1=2, r2=3), 4, "all wait for rank 3, which gives no answer"),
        (told(r0=1, r1=2, r2="busy"), 3, "all wait for rank 2 on n1, process 7, .*: busy"),
        (told(r0=None, r1=None, r3=None), 4, "all wait for rank 2, which gives no answer"),
        (told(r0=1, r1=None, r2="busy"), 3, "all wait for rank 2 on n1"),
        (told(r0=1, r1=2, r2=1), 3, "ranks 1, 2 wait for each other in a circle"),
        (told(r0=None, r1=None), 2, "all ranks wait, none is busy"),
    ],
)
def test_waits_are_followed_to_the_rank_that_does_not_wait(
    found: dict[int, dict[str, object]], ranks: int, sentence: str
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(_blame(found, 0, ranks))
