"""Where training drains, and that the parts between drains are the whole."""

import pytest
import torch

from hpc_lpm.data.dataset import Split
from hpc_lpm.engine.batches import samples_of_steps, steps_per_epoch, training_micro_batches
from hpc_lpm.engine.history import next_drain
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.errors import InputError
from hpc_lpm.options import LastBatch

RUN = {"model": "mlp", "dataset": "digits", "strategy": "sequential", "epochs": 1}
SPLIT = Split(torch.arange(43.0)[:, None], torch.arange(43))


def drains(steps_an_epoch: int, steps: int, **asked: object) -> list[int]:
    settings = checked_settings(**{**RUN, **asked})
    found = [0]
    while found[-1] < steps:
        found.append(next_drain(settings, found[-1], steps_an_epoch, steps))
    return found[1:]


def test_training_drains_at_the_end_of_epochs_and_where_it_is_asked_to() -> None:
    assert drains(5, 12) == [5, 10, 12]
    assert drains(5, 12, drain_at=[3, 5, 11]) == [3, 5, 10, 11, 12]
    assert drains(5, 12, checkpoint_steps=4) == [4, 5, 8, 10, 12]
    assert drains(5, 12, evaluate_every=3) == [3, 5, 6, 9, 10, 12]


def test_training_drains_where_it_begins_or_ends_to_flush_at_every_step() -> None:
    fbp = {"strategy": "fbp"}
    assert drains(5, 12, **fbp, synchronous_head="2steps") == [2, 5, 10, 12]
    assert drains(5, 12, **fbp, synchronous_tail=1) == [5, 10, 12]
    assert drains(5, 14, **fbp, synchronous_tail="3steps") == [5, 10, 11, 14]
    assert drains(5, 12, **fbp, synchronous_head="10%", synchronous_tail="25%") == [2, 5, 9, 10, 12]
    assert drains(5, 12, **fbp, synchronous_head="50%", synchronous_tail="50%") == [5, 10, 12]


@pytest.mark.parametrize("wrong", [[3, 3], [4, 2], [0]])
def test_drains_that_do_not_ascend_from_1_are_refused(wrong: list[int]) -> None:
    with pytest.raises(InputError, match=r"drain.at"):
        checked_settings(**RUN, drain_at=wrong)


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_parts_of_an_epoch_have_the_micro_batches_and_numbers_of_the_whole(
    last_batch: LastBatch, replicas: int
) -> None:
    steps = steps_per_epoch(SPLIT, 12, last_batch)
    whole = training_micro_batches(
        *(SPLIT,),
        **{"batch_size": 12, "micro_batches": 4, "steps": steps, "seed": 1, "epoch": 2},
        last_batch=last_batch,
        replicas=replicas,
    )
    for replica in range(replicas):
        taken = []
        for first, end in [(0, 1), (1, 3), (3, steps)]:
            share = whole.between(first, end).share(replica, replicas)
            taken += [
                (share.number(n), share.targets(n).tolist(), share.loss_divisor(n))
                for n in range(len(share))
            ]
        share = whole.share(replica, replicas)
        assert taken == [
            (share.number(n), share.targets(n).tolist(), share.loss_divisor(n))
            for n in range(len(share))
        ]
        # Taking a part of a share is the same as the share of a part.
        assert share.between(1, 3).step_samples() == whole.step_samples()[1:3]


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_the_samples_of_steps_are_those_of_their_micro_batches(last_batch: LastBatch) -> None:
    steps = steps_per_epoch(SPLIT, 12, last_batch)
    one = training_micro_batches(
        *(SPLIT,),
        **{"batch_size": 12, "micro_batches": 4, "steps": steps, "seed": 1, "epoch": 0},
        last_batch=last_batch,
    )
    found = samples_of_steps(SPLIT, 12, steps, 2 * steps + 1)
    assert found == [*one.step_samples(), *one.step_samples(), 12]
