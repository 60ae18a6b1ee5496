"""Whether the ranks of a launch have come to life: each leaves a file in a folder that all see.

A launcher may hang before it has started all of them, as where a node does not answer; then no rank
is there that could notice.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

from hpc_lpm.ranks import rank_from_environment

_VARIABLE = "HPC_LPM_ROLL_CALL"


class RollCall:
    """Tells which ranks of a launch have not been heard of.

    Args:
        folder: where they leave their files.
        ranks: how many there are.
        limit_seconds: how long they may take.
    """

    def __init__(self, folder: Path, ranks: int, limit_seconds: float) -> None:
        self._folder, self._ranks, self._limit_seconds = folder, ranks, limit_seconds
        self._missing = set(range(ranks))

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the launch, in which ranks find the folder."""
        return {**base, _VARIABLE: str(self._folder.absolute())}

    def complaint(self, seconds: float) -> str | None:
        """Return a sentence if ranks have not come to life that late, None if nothing is wrong."""
        if not self._missing or seconds <= self._limit_seconds:
            return None
        with suppress(OSError):  # a file server that is away for a moment
            self._missing -= {int(each.name) for each in self._folder.iterdir()}
        if not self._missing:
            return None
        missing = ", ".join(map(str, sorted(self._missing)))
        return (
            f"of {self._ranks} ranks these have not come to life within {self._limit_seconds:g} s: "
            f"{missing}; the launcher or a node hangs: run `hpc-lpm doctor` there, or raise "
            "receive_timeout_seconds if nodes are only slow."
        )


@contextmanager
def roll_call(beside: Path, ranks: int, limit_seconds: float) -> Iterator[RollCall]:
    """Make the folder of a roll call beside a file, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=".ranks-", dir=beside.parent))
    try:
        yield RollCall(folder, ranks, limit_seconds)
    finally:
        rmtree(folder, ignore_errors=True)


def answer_roll_call(environment: Mapping[str, str] = os.environ) -> None:
    """Tell whoever has launched this rank, if anyone asks, that it has come to life."""
    folder = environment.get(_VARIABLE)
    if folder:
        with suppress(OSError):  # the launch may be over
            (Path(folder) / str(rank_from_environment())).touch()
