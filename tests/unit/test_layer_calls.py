"""What a layer draws depends on seed, layer and micro-batch, and on nothing else."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.models.layer_calls import LayerCalls, UnexpectedDrawError
from hpc_lpm.random_streams import generators_kept

CPU = torch.device("cpu")


class Draws(nn.Module):
    """Returns what it is given and a number that it has drawn."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, given: list[float]) -> list[float]:
        return [*given, self.draw()]


class OwnGenerator(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.generator = {
            "torch": torch.Generator(),
            "python": random.Random(0),
            "state": np.random.RandomState(0),
            "numpy": np.random.default_rng(0),
        }[kind]

    def forward(self, given: list[float]) -> list[float]:
        generator = self.generator
        if isinstance(generator, torch.Generator):
            return [*given, float(torch.rand((), generator=generator))]
        return [*given, float(generator.random())]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "torch": lambda: Draws(lambda: float(torch.rand(()))),
    "python": lambda: Draws(random.random),
    "numpy": lambda: Draws(lambda: float(np.random.random_sample())),
    **{
        f"own generator of {kind}": lambda kind=kind: OwnGenerator(kind)  # type: ignore[misc]
        for kind in ("torch", "python", "state", "numpy")
    },
}


def drawn(layers: dict[int, nn.Module], number: int, seed: int = 3) -> list[float]:
    calls = LayerCalls(layers, seed, CPU)
    calls.number = number
    calls.run([])
    return calls.run([])


@pytest.mark.parametrize("kind", LAYERS)
def test_the_same_layer_and_micro_batch_draw_the_same_wherever_and_whenever(kind: str) -> None:
    layer = LAYERS[kind]()
    with generators_kept():
        alone = drawn({5: layer}, 7)
        torch.manual_seed(1)
        random.seed(1)
        among = drawn({4: LAYERS[kind](), 5: layer, 6: LAYERS[kind]()}, 7)
    assert among[1] == alone[0]
    assert len({*among, *drawn({5: layer}, 8), *drawn({5: layer}, 7, seed=4)}) == 5


def test_training_and_evaluation_draw_apart() -> None:
    calls = LayerCalls({0: LAYERS["torch"]()}, 0, CPU)
    with generators_kept():
        in_training = calls.run([])
        calls.training = False
        assert calls.run([]) == calls.run([]) != in_training


@pytest.mark.parametrize("kind", ["torch", "python", "numpy"])
def test_a_draw_that_the_first_pass_did_not_show_is_not_silent(kind: str) -> None:
    layer = LAYERS[kind]()
    assert isinstance(layer, Draws)
    draw, layer.draw = layer.draw, lambda: 0.0
    calls = LayerCalls({0: nn.Identity(), 1: layer}, 0, CPU)
    with generators_kept():
        calls.run([])
        calls.run([])
        layer.draw = draw
        with pytest.raises(UnexpectedDrawError, match="let it draw in every pass"):
            calls.run([])


def test_a_loss_draws_by_itself() -> None:
    def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs + torch.rand(())

    calls = LayerCalls({0: nn.Identity()}, 0, CPU)
    with generators_kept():
        first = calls.loss(noisy, torch.zeros(()), torch.zeros(()))
        torch.rand(5)
        assert torch.equal(first, calls.loss(noisy, torch.zeros(()), torch.zeros(())))
        calls.number = 1
        assert not torch.equal(first, calls.loss(noisy, torch.zeros(()), torch.zeros(())))
