"""Point-to-point messages between real ranks."""

from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("transport", ["mpi", "torch"])
def test_messages_arrive_in_order_and_unharmed_though_nobody_receives_while_they_are_sent(
    transport: str,
) -> None:
    program = str(Path(__file__).with_name("transport_program.py"))
    done = mpirun(2, program, transport, timeout_seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        assert f"rank {rank} received everything" in done.stdout
