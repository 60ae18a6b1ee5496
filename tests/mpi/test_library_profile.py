"""Real ranks profile from a script: all get the same profile, or the same reason for none."""

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi


def test_ranks_of_a_script_profile_alike_or_not_at_all() -> None:
    done = mpirun(2, "-m", "tests.mpi.library_profile")
    assert done.returncode == 0, done.stderr
    failed, own, first, second = done.stdout.splitlines()
    assert failed.startswith("0: rank 1 cannot profile the model, since the loss failing_on_rank_1")
    assert own.startswith("1: the loss failing_on_rank_1 raises KeyError: 'targets of rank 1'")
    assert (
        first[2:]
        == second[2:]
        == (
            " the models of ranks 0 and 1 differ in layer 0 (0): build the same model on all ranks."
        )
    )
