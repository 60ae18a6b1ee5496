"""A weight that a model uses in many places gets their gradients in the order of the layers.

So does sequential training add them, in whatever order they come from other devices.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.one_process.play import play_ranks
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.engine.training import Training
from hpc_lpm.models.layered import Tie
from tests.mpi.plans import write_plan

MODEL = "tests.unit.test_weights_used_often:model"
LAYERS = 8
RUN: dict[str, Any] = {
    **{"model": MODEL, "dataset": "digits", "batch_size": 24, "micro_batches": 3, "steps": 3},
    **{"seed": 5, "checkpoint_epochs": 0, "threads": 1},
    # Whose steps show what rounding has left of small gradients.
    "optimizer": {"name": "adamw", "lr": 0.01},
}


class Recurrent(nn.Module):
    """Six applications of one block between two layers of its own."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.enter = nn.Linear(inputs, 7)
        self.block = nn.Linear(7, 7)
        self.leave = nn.Linear(7, classes)

    def forward(self, images: Tensor) -> Tensor:
        state = self.enter(self.flatten(images))
        for _ in range(6):
            state = torch.tanh(self.block(state))
        logits: Tensor = self.leave(state)
        return logits


def model(shape: DataShape) -> nn.Module:
    channels, height, width = shape.input_shape
    return Recurrent(channels * height * width, shape.classes)


def trained_sha256(tmp_path: Path, **options: Any) -> str:
    settings = checked_settings(**{**RUN, **options})
    ranks = options.get("ranks", 1)

    def train(job: Any) -> Any:
        return Training(settings, job).run(tmp_path / f"run-{settings.strategy}-{ranks}", None)

    first, *_ = play_ranks(ranks, 60.0, train)
    assert first is not None
    return str(first.weights_sha256)


@pytest.mark.parametrize(
    ("strategy", "devices", "chunks"),
    [("1f1b", 4, 1), ("interleaved-1f1b", 2, 2), ("zb-v", 2, 2), ("zb-v", 4, 2), ("v-min", 2, 2)],
)
def test_schedules_with_chunks_add_up_as_sequential_training_does(
    strategy: str, devices: int, chunks: int, tmp_path: Path
) -> None:
    stages = devices * chunks
    cuts = sorted({round(LAYERS * stage / stages) for stage in range(stages + 1)})
    plan = tmp_path / "plan.json"
    placed = {"schedule": strategy, "chunks": chunks} if chunks > 1 else {}
    write_plan(cuts, MODEL, plan, **placed)
    alone = trained_sha256(tmp_path, strategy="sequential")
    played = {"strategy": strategy, "plan": plan, "in_one_process": True, "ranks": devices}
    assert trained_sha256(tmp_path, **played) == alone


def test_gradients_are_added_in_the_order_of_the_ties() -> None:
    layers = {index: nn.Linear(1, 1, bias=False) for index in (0, 2, 4)}
    ties = [Tie(0, "weight", copy, "weight") for copy in (1, 2, 3, 4)]
    tied = TiedParameters(ties, layers, device_of=lambda layer: layer % 2)
    # In float32 the order of these sums shows: a large number swallows a small one.
    own, here = layers[0].weight, {2: -1e8, 4: 4.0}
    own.grad = torch.full((1, 1), 1e8)
    for layer, gradient in here.items():
        layers[layer].weight.grad = torch.full((1, 1), gradient)
    tied.take_gradients(1, [torch.full((1, 1), 3.0), torch.full((1, 1), 2.0)])
    tied.collect_gradients()
    expected = torch.tensor(1e8) + 3.0 + -1e8 + 2.0 + 4.0
    assert own.grad.item() == expected.item() != 9.0
    assert layers[2].weight.grad is None
    # What was taken counts once.
    tied.collect_gradients()
    assert own.grad.item() == expected.item()
