"""Which rank is which replica, and which micro-batches it takes."""

import pytest
import torch
from deepspeed.runtime.pipe.topology import PipeDataParallelTopology

from hpc_lpm.data.dataset import Split
from hpc_lpm.engine.batches import evaluation_micro_batches, training_micro_batches
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.errors import InputError
from hpc_lpm.schedules.placement import Placement

SPLIT = Split(torch.arange(40, dtype=torch.float32)[:, None], torch.arange(40))


@pytest.mark.parametrize(("stages", "replicas"), [(1, 1), (1, 4), (3, 1), (2, 2), (3, 4)])
def test_ranks_are_laid_out_as_deepspeed_does(stages: int, replicas: int) -> None:
    theirs = PipeDataParallelTopology(num_pp=stages, num_dp=replicas)
    for rank in range(stages * replicas):
        ours = PipelineTopology(rank, Placement.in_a_loop(stages), replicas)
        place = theirs.get_coord(rank)
        assert (ours.stage, ours.replica) == (place.pipe, place.data)
        if ours.stage > 0:
            before = theirs.get_rank(pipe=ours.stage - 1, data=ours.replica)
            assert ours.places[0].previous_rank == before
        if ours.stage < stages - 1:
            assert ours.places[0].next_rank == theirs.get_rank(
                pipe=ours.stage + 1, data=ours.replica
            )


@pytest.mark.parametrize("epoch", [0, 2])
def test_replicas_share_the_micro_batches_of_training_in_turn(epoch: int) -> None:
    batches = training_micro_batches(
        SPLIT, batch_size=12, micro_batches=6, steps=3, seed=1, epoch=epoch
    )
    shares = [batches.share(replica, 3) for replica in range(3)]
    for n in range(len(batches)):
        own = shares[n % 3]
        assert own.targets(n // 3).tolist() == batches.targets(n).tolist()
        assert own.number(n // 3) == batches.number(n) == epoch * 18 + n
    assert [len(share) for share in shares] == [6, 6, 6]


def test_the_only_replica_takes_everything() -> None:
    batches = evaluation_micro_batches(SPLIT, 7)
    assert batches.share(0, 1) == batches


def test_a_replica_may_have_nothing_to_evaluate() -> None:
    batches = evaluation_micro_batches(SPLIT, 30)
    assert [len(batches.share(replica, 3)) for replica in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("stages", [1, 2])
def test_replicas_of_few_stages_too_share_a_batch_evenly(stages: int) -> None:
    run = {"model": "mlp", "dataset": "digits", "strategy": "fbp", "epochs": 1}
    uneven = checked_settings(**run, batch_size=20, micro_batches=4)
    check_run(PlannedRun(uneven, None, stages, stages))
    with pytest.raises(InputError, match=r"--batch-size 20 is not .* times the 2 replicas"):
        check_run(PlannedRun(uneven, None, 2 * stages, stages))
    kept = checked_settings(**run, batch_size=16, micro_batches=4, last_batch="keep")
    check_run(PlannedRun(kept, None, 2 * stages, stages, samples=34))
    with pytest.raises(InputError, match="the last batch of an epoch has 1 samples for 2"):
        check_run(PlannedRun(kept, None, 2 * stages, stages, samples=33))
