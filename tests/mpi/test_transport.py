"""Point-to-point messages between real ranks."""

from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi


def test_messages_arrive_in_order_and_unharmed_though_nobody_receives_while_they_are_sent() -> None:
    done = mpirun(2, str(Path(__file__).with_name("transport_program.py")), timeout_seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        assert f"rank {rank} received everything" in done.stdout
