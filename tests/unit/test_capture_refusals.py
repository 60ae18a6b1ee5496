"""A module that cannot be captured is divided into its children, or refused by a sentence."""

import inspect
import random

import numpy as np
import pytest
import torch
from captured_networks import results_of_chain, results_of_module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpc_lpm.errors import InputError
from hpc_lpm.models.capture import capture_model


def vectors(samples: int) -> Tensor:
    return torch.randn(samples, 4, generator=torch.Generator().manual_seed(samples))


class DrawsFromPython(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.part(inputs)
        factor = random.random()  # the line
        return found * factor


class DrawsFromNumPy(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and np.random.rand() < 2:  # the line
            return inputs * 2
        return inputs


class Holds(nn.Module):
    """Uses its part beside something else, so that it is no chain."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.part = part

    def forward(self, inputs: Tensor) -> Tensor:
        return self.part(self.first(inputs)) + inputs


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.part(inputs)
        if found.sum() > 0:  # the line
            found = found * 2
        return found


class FixedNumber(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:  # the line
        return inputs.view(3, 4) * 2


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.runs = 0

    def forward(self, inputs: Tensor) -> Tensor:  # the line
        self.runs += 1
        return self.part(inputs) * self.runs


class Reentrant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return checkpoint(self.part, inputs, use_reentrant=True)


class Fails(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.view(7)  # the line


def line_in(kind: type[nn.Module]) -> str:
    lines, start = inspect.getsourcelines(kind)
    number = next(n for n, line in enumerate(lines) if "# the line" in line)
    return rf"test_capture_refusals\.py, line {start + number}\)"


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (DrawsFromPython, "since it draws from Python's random numbers, which .* torch's"),
        (DrawsFromNumPy, r"NumPy's random numbers in part \(DrawsFromNumPy\), which a capture"),
        (Decides, "since it decides by the values of a tensor .* such as torch.where"),
        (
            FixedNumber,
            r"its part part \(FixedNumber\) works for the example's number .* x.shape\[0\]",
        ),
        (Counts, r"changes the attribute runs of part \(Counts\) each time, .* registered buffer"),
    ],
)
def test_a_refusal_names_the_line_and_what_to_write_instead(
    module: type[nn.Module], sentence: str
) -> None:
    whole = module() if module is DrawsFromPython else Holds(module())
    with pytest.raises(InputError, match=sentence) as caught:
        capture_model(whole, vectors(3), name="mine:net")
    assert str(caught.value).startswith("model 'mine:net': ")
    caught.match(line_in(module))


def test_checkpoints_that_cannot_be_recorded_are_named() -> None:
    with pytest.raises(InputError, match=r"uses torch\.utils.checkpoint .* use_reentrant=False"):
        capture_model(Holds(Reentrant()), vectors(3))


def test_a_compiled_module_is_refused_or_taken_as_it_was_written() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    with pytest.raises(InputError, match=r"'net' is compiled by torch\.jit, accepted is the"):
        capture_model(scripted, vectors(3), name="net")
    compiled = torch.compile(Residual())
    assert [layer.name for layer in capture_model(compiled, vectors(3)).layers] == [
        "wide",
        "narrow",
    ]


def test_a_module_that_fails_on_its_example_is_told_where() -> None:
    with pytest.raises(InputError, match=r"Fails raises RuntimeError: shape '\[7\]' is invalid"):
        capture_model(Fails(), vectors(3))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.narrow(torch.relu(self.wide(inputs)))


class Chain(nn.Module):
    """Its second child cannot be captured; its third one can, and so be divided further."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.never = nn.Linear(2, 2)
        self.first, self.middle, self.last = nn.Linear(4, 4), middle, Residual()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(self.first(inputs)))


@pytest.mark.parametrize("middle", [Decides, DrawsFromPython])
def test_children_that_follow_each_other_are_layers_where_a_capture_is_refused(
    middle: type[nn.Module],
) -> None:
    module = Chain(middle())
    model = capture_model(module, vectors(3))
    names = [layer.name for layer in model.layers]
    assert names == ["first.linear", "middle", "last.wide", "last.narrow"]
    assert [(end.path, end.type) for end in model.layers[-1].ends] == [
        ("last.narrow", "Linear"),
        ("last", "Residual"),
    ]
    assert model.layers[2].original == {"weight": "last.wide.weight", "bias": "last.wide.bias"}
    held = [name for layer in model.layers for name in layer.original.values()]
    assert sorted(held) == sorted(module.state_dict())
    for apart in (False, True):
        for samples in (3, 5):
            module.zero_grad()
            layers = [layer.build() for layer in model.layers]
            random.seed(1)
            expected = results_of_module(module, vectors(samples))
            random.seed(1)
            found = results_of_chain(layers, vectors(samples), apart)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
            for layer, built in zip(model.layers, layers, strict=True):
                for own, parameter in built.named_parameters():
                    original = module.get_parameter(layer.original[own])
                    if layer.original[own].startswith("never"):
                        assert parameter.grad is None
                        assert torch.equal(parameter, original)
                    else:
                        assert torch.equal(parameter.grad, original.grad)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Decides()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.part(self.part(inputs))


def test_children_that_are_called_twice_are_no_chain() -> None:
    with pytest.raises(InputError, match="decides by the values of a tensor"):
        capture_model(Twice(), vectors(3))


def test_the_module_is_left_as_it_was() -> None:
    module = Chain(Decides())
    module.middle.register_buffer("seen", torch.zeros(()))
    module.first.eval()
    modes = [part.training for part in module.modules()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    capture_model(module, vectors(3))
    assert torch.equal(torch.rand(3), expected)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
