"""The order of an epoch is a function of seed and epoch."""

import torch

from hpc_lpm.data.dataset import epoch_order


def test_order_visits_every_sample_once() -> None:
    assert epoch_order(100, 3, 4).sort().values.tolist() == list(range(100))


def test_order_repeats_whatever_the_global_state() -> None:
    first = epoch_order(100, 3, 4)
    torch.manual_seed(55)
    assert torch.equal(epoch_order(100, 3, 4), first)


def test_order_changes_with_seed_and_epoch() -> None:
    first = epoch_order(100, 3, 4)
    assert not torch.equal(first, epoch_order(100, 4, 4))
    assert not torch.equal(first, epoch_order(100, 3, 5))
