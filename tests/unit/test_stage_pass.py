"""A stage's backward pass in halves: the same gradients, and little is kept in between."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.stage_pass import InFlight, StagePass
from hpc_lpm.models.compute_format import PLAIN
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.models.layered import cross_entropy

TARGETS = torch.tensor([0, 1, 2, 1])
DIVISOR = 3


class Residual(nn.Module):
    """Returns a sum and what it was given, so that an input is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True))

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return inputs[0] + self.inner(inputs[1]), inputs[1]


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return self.linear(inputs[0] * inputs[1])


class Stage:
    """A stage of two layers, and what two micro-batches of it lead to."""

    def __init__(self, *, is_first: bool, is_last: bool) -> None:
        torch.manual_seed(5)
        layers = {3: Residual(), 4: Last() if is_last else Residual()}
        self.module = nn.ModuleList(layers.values())
        self.stage = StagePass(
            LayerCalls(layers, 0, torch.device("cpu")),
            PLAIN,
            cross_entropy if is_last else None,
        )
        self.flights = [self._forward(n, is_first=is_first, is_last=is_last) for n in range(2)]
        self.gradients: list[tuple[Tensor, ...]] = [
            () if is_last else (torch.randn(4, 6), torch.randn(4, 6)) for _ in self.flights
        ]

    def _forward(self, number: int, *, is_first: bool, is_last: bool) -> InFlight:
        inputs = tuple(torch.randn(4, 6, requires_grad=not is_first) for _ in range(2))
        flight = InFlight(inputs, targets=TARGETS if is_last else None)
        outputs = self.stage.forward(flight, number, training=True, keep_graph=True)
        flight.outgoing = None if is_last else BoundarySpec.of(outputs)
        return flight

    def arriving(self, number: int) -> Sequence[Tensor]:
        """Return the gradients of the outputs that require one."""
        outgoing = self.flights[number].outgoing
        specs = outgoing.tensors if outgoing else ()
        given = zip(specs, self.gradients[number], strict=True)
        return [gradient for spec, gradient in given if spec.requires_gradient]


@pytest.mark.parametrize("is_last", [False, True], ids=["before others", "last"])
@pytest.mark.parametrize("is_first", [False, True], ids=["after others", "first"])
def test_halves_give_the_gradients_of_the_whole(is_first: bool, is_last: bool) -> None:
    whole, split = (Stage(is_first=is_first, is_last=is_last) for _ in range(2))
    expected = [
        whole.stage.backward(flight, whole.arriving(n), DIVISOR)
        for n, flight in enumerate(whole.flights)
    ]
    found = [
        split.stage.backward_input(flight, split.arriving(n), DIVISOR)
        for n, flight in enumerate(split.flights)
    ]
    for flight in split.flights:
        split.stage.backward_weights(flight)
    for given, others in zip(found, expected, strict=True):
        assert len(given) == (0 if is_first else 2)
        assert all(torch.equal(*pair) for pair in zip(given, others, strict=True))
    weights = zip(split.module.parameters(), whole.module.parameters(), strict=True)
    assert all(torch.equal(weight.grad, other.grad) for weight, other in weights)


def test_inputs_gradients_outputs_and_targets_are_let_go_of_after_the_first_half() -> None:
    stage = Stage(is_first=False, is_last=True)
    flight = stage.flights[0]
    outputs = StorageWeakRef(flight.outputs.untyped_storage())
    inputs = [StorageWeakRef(tensor.untyped_storage()) for tensor in flight.inputs]
    given = stage.stage.backward_input(flight, (), DIVISOR)
    gradients = [StorageWeakRef(gradient.untyped_storage()) for gradient in given]
    del given
    assert outputs.expired() and flight.targets is None
    assert all(gradient.expired() for gradient in gradients)
    # The first layer's matrix product reads the second input, nothing the first.
    assert [tensor.expired() for tensor in inputs] == [True, False]
    stage.stage.backward_weights(flight)
    assert inputs[1].expired()
