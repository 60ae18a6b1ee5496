"""The two halves of a backward pass add up to the whole, to the bit, and do nothing twice."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from halved_modules import CASES, Case, random_module
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hpc_lpm.split_backward.halves import SplitBackward

MICRO_BATCHES = 3
RANDOM = {f"random {seed}": Case(lambda seed=seed: random_module(seed)) for seed in range(150)}
ALL = CASES | RANDOM


class Passes:
    """The micro-batches of a case, each with its forward pass done, and what they lead to."""

    def __init__(self, case: Case, *, inputs_learn: bool) -> None:
        torch.manual_seed(7)
        self.module = case.build()
        self.inputs = [
            [
                torch.randn(shape, dtype=case.dtype, requires_grad=inputs_learn)
                for shape in case.shapes
            ]
            for _ in range(MICRO_BATCHES)
        ]
        self._autocast = case.autocast
        self.roots, self.gradients = zip(*map(self._forward, self.inputs), strict=True)

    def _forward(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        around = torch.autocast("cpu", torch.bfloat16) if self._autocast else nullcontext()
        with around:
            made = self.module(*inputs)
        outputs = made if isinstance(made, tuple) else (made,)
        roots = [root for root in outputs if root.requires_grad]
        if len(roots) == 1 and not roots[0].dim():
            return roots, [None]
        return roots, [torch.randn_like(root) for root in roots]

    def whole(self) -> dict[str, Tensor | None]:
        for roots, gradients in zip(self.roots, self.gradients, strict=True):
            if roots:
                torch.autograd.backward(roots, gradients)
        return self.found()

    def halves(self) -> "Halves":
        return Halves(self)

    def found(self) -> dict[str, Tensor | None]:
        found = {name: weight.grad for name, weight in self.module.named_parameters()}
        for number, inputs in enumerate(self.inputs):
            found |= {f"input {number} {i}": tensor.grad for i, tensor in enumerate(inputs)}
        return found


class Halves:
    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._splits = [SplitBackward() for _ in range(MICRO_BATCHES)]

    def first(self, n: int) -> None:
        passes = self._passes
        self._splits[n].input_half(passes.roots[n], passes.gradients[n], passes.inputs[n])

    def second(self, n: int) -> None:
        self._splits[n].weight_half()

    def interleaved(self) -> dict[str, Tensor | None]:
        """Let the second halves come late, though in order."""
        self.first(0)
        for n in range(1, MICRO_BATCHES):
            self.first(n)
            self.second(n - 1)
        self.second(MICRO_BATCHES - 1)
        return self._passes.found()


class Heavy(TorchDispatchMode):
    """Counts the convolutions and matrix products; what a convolution computes one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Counter[Any] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = operation.overloadpacket.__name__
        shapes = tuple(tuple(arg.shape) for arg in args if isinstance(arg, Tensor))
        if name == "convolution_backward":
            self.done.update(
                (name, part, shapes)
                for part, wanted in zip(("input", "weight", "bias"), args[-1], strict=True)
                if wanted
            )
        elif "mm" in name or "conv" in name or name in {"mv", "dot", "_trilinear"}:
            self.done[name, shapes] += 1
        return operation(*args, **(kwargs or {}))


def assert_same_bits(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        other = found[name]
        if gradient is None or other is None:
            assert gradient is other, name
            continue
        assert gradient.layout == other.layout and gradient.dtype == other.dtype, name
        values = [torch.nan_to_num(each.to_dense()) for each in (gradient, other)]
        assert torch.equal(*values), name


@pytest.mark.parametrize("inputs_learn", [True, False], ids=["inside", "first"])
@pytest.mark.parametrize("name", ALL)
def test_halves_add_up_to_the_gradients_of_the_whole(name: str, inputs_learn: bool) -> None:
    expected = Passes(ALL[name], inputs_learn=inputs_learn).whole()
    found = Passes(ALL[name], inputs_learn=inputs_learn).halves().interleaved()
    assert_same_bits(found, expected)


@pytest.mark.parametrize("name", ALL)
def test_no_convolution_or_matrix_product_runs_twice(name: str) -> None:
    passes = Passes(ALL[name], inputs_learn=True)
    with Heavy() as whole:
        passes.whole()
    halves = Passes(ALL[name], inputs_learn=True).halves()
    with Heavy() as split:
        halves.interleaved()
    assert split.done == whole.done


@pytest.mark.parametrize(
    ("name", "waiting"),
    [
        ("linear", {"weight", "bias"}),
        ("perceptron", {"0.weight", "0.bias", "2.weight", "2.bias"}),
        ("residual block", {"first.0.weight", "second.0.weight", "second.0.bias"}),
        ("lstm", set()),
        ("norms", {"1.weight", "1.bias"}),
        ("weight norm", {"bias", "parametrizations.weight.original0"}),
        ("tied", set()),
        ("called twice", set()),
        ("tokens", {"tokens", "places", "mix.weight", "mix.bias"}),
        ("namesake", set()),
        ("checkpoint", {"before.weight", "before.bias", "last.weight", "last.bias"}),
        ("reentrant checkpoint", set()),
        ("several outputs", {"first.weight", "second.weight", "alone.weight", "constant"}),
        ("autocast", {"0.weight", "0.bias", "3.weight", "3.bias"}),
        ("adapted", {"down.weight", "up.weight"}),
    ],
)
def test_gradients_that_can_wait_do_and_the_others_do_not(name: str, waiting: set[str]) -> None:
    passes = Passes(CASES[name], inputs_learn=True)
    halves = passes.halves()
    halves.first(0)
    without = {n for n, weight in passes.module.named_parameters() if weight.grad is None}
    halves.second(0)
    later = {n for n in without if passes.module.get_parameter(n).grad is not None}
    assert waiting <= later
    if not waiting:
        assert not later
