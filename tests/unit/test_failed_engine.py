"""What a script may still do with an engine that has failed."""

import math

import pytest
import torch
from torch import Tensor, nn

import hpc_lpm
from hpc_lpm.errors import InputError, TrainingError


def without_a_number(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.sum() * math.nan


def test_an_engine_that_has_failed_is_closed_without_another_error() -> None:
    engine = hpc_lpm.initialize(
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        loss=without_a_number,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        batch_size=4,
        micro_batches=1,
    )
    with pytest.raises(TrainingError, match="the loss is nan"):
        engine.train_batch(torch.ones(4, 4), torch.zeros(4))
    engine.close()
    with pytest.raises(InputError, match="drain was called on an engine that has failed"):
        engine.drain()
