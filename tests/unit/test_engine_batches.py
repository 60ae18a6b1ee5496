"""Every strategy sees the same samples in the same order."""

import pytest
import torch

from hpc_lpm.data.dataset import Split
from hpc_lpm.engine.batches import (
    evaluation_micro_batches,
    steps_per_epoch,
    training_micro_batches,
    training_sizes,
)
from hpc_lpm.errors import InputError

SPLIT = Split(torch.arange(23, dtype=torch.float32)[:, None], torch.arange(23))


def training(epoch: int, steps: int = 5, seed: int = 1, **more):
    return training_micro_batches(
        SPLIT, batch_size=4, micro_batches=2, steps=steps, seed=seed, epoch=epoch, **more
    )


def seen(batches) -> list[int]:
    return [int(t) for n in range(len(batches)) for t in batches.targets(n)]


def test_an_epoch_visits_whole_batches_of_distinct_samples() -> None:
    batches = training(epoch=0)
    assert len(batches) == 10
    assert [batches.size(n) for n in range(10)] == [2] * 10
    assert len(set(seen(batches))) == 20


def test_inputs_and_targets_of_a_micro_batch_belong_together() -> None:
    batches = training(epoch=3)
    for n in range(len(batches)):
        assert batches.inputs(n)[:, 0].tolist() == batches.targets(n).tolist()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert seen(training(epoch=1)) == seen(training(epoch=1))
    assert seen(training(epoch=1)) != seen(training(epoch=2))
    assert seen(training(epoch=1)) != seen(training(epoch=1, seed=2))


def test_a_shorter_epoch_is_the_beginning_of_the_whole_one() -> None:
    assert seen(training(epoch=1, steps=2)) == seen(training(epoch=1))[:8]


def test_micro_batches_are_numbered_through_the_whole_training() -> None:
    assert [training(epoch=e).first_index for e in range(3)] == [0, 10, 20]


def test_a_kept_last_batch_holds_the_rest_of_the_epoch() -> None:
    batches = training(epoch=0, steps=6, last_batch="keep")
    assert sorted(seen(batches)) == list(range(23))
    assert [batches.size(n) for n in range(len(batches))] == [2] * 11 + [1]
    assert list(batches.steps())[-1] == range(10, 12)
    assert batches.step_samples() == [4] * 5 + [3]
    assert steps_per_epoch(SPLIT, 4, "keep") == 6
    assert training(epoch=2, last_batch="keep").first_index == 24


def test_every_sample_of_a_step_counts_the_same() -> None:
    batches = training(epoch=0, steps=6, last_batch="keep")
    for step in batches.steps():
        samples = sum(batches.size(n) for n in step)
        for n in step:
            # A mean loss divided so gives each of its samples one part in `samples`.
            assert 1 / batches.size(n) / batches.loss_divisor(n) == pytest.approx(1 / samples)
    assert batches.loss_divisor(0) == 2
    assert training_sizes(SPLIT, 4, 2, "keep") == {2, 1}
    assert training_sizes(SPLIT, 4, 2, "drop") == {2}


def test_evaluation_covers_every_sample_once_and_in_order() -> None:
    batches = evaluation_micro_batches(SPLIT, 5)
    assert seen(batches) == list(range(23))
    assert [batches.size(n) for n in range(len(batches))] == [5, 5, 5, 5, 3]


def test_a_batch_larger_than_the_split_is_refused_with_the_largest_that_works() -> None:
    with pytest.raises(InputError, match=r"--batch-size 24 .* at most 23"):
        steps_per_epoch(SPLIT, 24, "drop")
