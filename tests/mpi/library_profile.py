"""A script that profiles on two ranks: the same model, then one that fails on rank 1, then two."""

import sys

import torch
from mpi4py import MPI
from torch import Tensor, nn

import hpc_lpm

world = MPI.COMM_WORLD
MICRO_BATCH = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])


def module(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def failing_on_rank_1(outputs: Tensor, targets: Tensor) -> Tensor:
    if world.rank == 1:
        raise KeyError("targets of rank 1")
    return nn.functional.cross_entropy(outputs, targets)


profile = hpc_lpm.profile(module(), MICRO_BATCH, loss=nn.CrossEntropyLoss(), repeats=2)
assert world.allgather(profile) == [profile] * 2
assert profile.environment["ranks"] == 2
assert profile.environment["link"] == "measured"
for width, loss in ((8, failing_on_rank_1), (8 + world.rank, nn.functional.cross_entropy)):
    try:
        hpc_lpm.profile(module(width), MICRO_BATCH, loss=loss, repeats=2)
    except hpc_lpm.InputError as error:
        for rank, sentence in enumerate(world.gather(str(error)) or []):
            sys.stdout.write(f"{rank}: {sentence}\n")
