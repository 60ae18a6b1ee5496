"""Dropout whose mask belongs to (seed, layer, micro-batch)."""

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.models.dropout import Dropout, set_dropout_stream

ONES = torch.ones(200, 100)


def mask(module: nn.Module, *stream: int) -> Tensor:
    set_dropout_stream(module, *stream)
    return module(ONES) == 0


def test_same_stream_gives_the_same_mask_whatever_happened_between() -> None:
    dropout = Dropout(0.3)
    first = mask(dropout, 1, 2, 3)
    mask(dropout, 1, 2, 4)
    torch.manual_seed(123)
    assert torch.equal(mask(Dropout(0.3), 1, 2, 3), first)


@pytest.mark.parametrize("other", [(2, 2, 3), (1, 3, 3), (1, 2, 4)])
def test_other_seed_layer_or_micro_batch_gives_an_unrelated_mask(
    other: tuple[int, int, int],
) -> None:
    both = mask(Dropout(0.3), 1, 2, 3) & mask(Dropout(0.3), *other)
    assert both.float().mean().item() == pytest.approx(0.09, abs=0.01)


def test_two_dropouts_of_one_layer_draw_different_masks() -> None:
    layer = nn.ModuleList([Dropout(0.5), nn.Sequential(Dropout(0.5))])
    set_dropout_stream(layer, 0, 0, 0)
    assert not torch.equal(layer[0](ONES), layer[1](ONES))


def test_drops_the_asked_share_and_keeps_the_mean() -> None:
    dropped = Dropout(0.3)(ONES)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_gradient_passes_where_the_mask_does() -> None:
    inputs = ONES.clone().requires_grad_()
    outputs = Dropout(0.3)(inputs)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach())


def test_without_a_stream_every_pass_draws_anew_but_rebuilding_repeats() -> None:
    torch.manual_seed(7)
    one = Dropout(0.5)
    first, second = one(ONES), one(ONES)
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    assert torch.equal(Dropout(0.5)(ONES), first)


def test_evaluation_drops_nothing() -> None:
    assert torch.equal(Dropout(0.5).eval()(ONES), ONES)


def test_global_random_state_is_not_touched() -> None:
    before = torch.random.get_rng_state()
    Dropout(0.5)(ONES)
    assert torch.equal(torch.random.get_rng_state(), before)
