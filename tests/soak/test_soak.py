"""A short soak: faults at random moments cost no bit and no memory."""

from pathlib import Path

import pytest

from tests.soak.soak import FAULTS, MOST_GROWTH, soak

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(900)]


def test_a_run_that_is_hit_again_and_again_ends_in_the_same_weights_and_does_not_grow(
    tmp_path: Path,
) -> None:
    every = len(FAULTS)
    # However the moments are drawn, the last fault comes after 12 s of training at the latest, and
    # six checkpoints follow it.
    found = soak(
        tmp_path, minutes=0.28, save_seconds=0.7, fault_seconds=2.0, seed=18, most_faults=every
    )
    assert len(found.faults) == len(found.lost_steps) == every
    assert found.damaged
    assert found.weights[0] == found.weights[1]
    assert found.compared_saves >= 3
    assert max(found.growth) <= MOST_GROWTH, found
