"""The two halves of a backward pass add up to the whole, to the bit, and do nothing twice."""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from halved_modules import CASES, Calls, Case, random_module
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hpc_lpm.split_backward.deferred_work import defer
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


def test_first_half_computes_no_weights_gradient_and_second_half_no_inputs_gradient() -> None:
    passes = Passes(CASES["residual block"], inputs_learn=True)
    halves = passes.halves()
    with Heavy() as first:
        halves.first(0)
    with Heavy() as second:
        halves.second(0)
    assert Counter(part for _, part, _ in first.done.elements()) == {"input": 2}
    assert Counter(part for _, part, _ in second.done.elements()) == {"weight": 2, "bias": 1}


def test_first_stage_leaves_everything_to_the_second_half() -> None:
    passes = Passes(CASES["lstm"], inputs_learn=False)
    halves = passes.halves()
    halves.first(0)
    assert all(weight.grad is None for weight in passes.module.parameters())
    halves.second(0)
    assert all(weight.grad is not None for weight in passes.module.parameters())


class Watched(nn.Module):
    """Two matrix products with an exponential before each, whose results autograd keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
        self.needed: list[StorageWeakRef] = []
        self.spent: list[StorageWeakRef] = []

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in (self.first, self.last):
            grown = inputs.exp()
            entering = grown.cumsum(1)
            self.spent.append(StorageWeakRef(grown.untyped_storage()))
            self.needed.append(StorageWeakRef(entering.untyped_storage()))
            inputs = layer(entering)
        return inputs


@contextmanager
def no_collection() -> Iterator[None]:
    """Let nothing be freed but by counting references."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_between_the_halves_only_what_the_second_needs_stays_alive() -> None:
    module, split = Watched(), SplitBackward()
    with no_collection():
        inputs = torch.randn(4, 6, requires_grad=True)
        outputs = module(inputs)
        gradient = torch.ones_like(outputs)
        result, arriving = (StorageWeakRef(each.untyped_storage()) for each in (outputs, gradient))
        split.input_half([outputs], [gradient], [inputs])
        del outputs, gradient
        assert result.expired() and not arriving.expired()
        assert all(each.expired() for each in module.spent)
        assert not any(each.expired() for each in module.needed)
        split.weight_half()
        assert arriving.expired()
        assert all(each.expired() for each in module.needed)


def test_what_the_graph_saved_is_released_while_the_first_half_runs() -> None:
    module, split, alive = Watched(), SplitBackward(), []
    inputs = torch.randn(4, 6, requires_grad=True)
    entering = inputs * 1
    entering.register_hook(lambda _: alive.append([not each.expired() for each in module.spent]))
    outputs = module(entering)
    split.input_half([outputs], [torch.ones_like(outputs)], [inputs])
    # That of the later layer has gone when the gradient of the earlier one is about to arrive.
    assert alive == [[True, False]]


def test_weights_hooks_run_once_per_micro_batch_with_the_gradient_of_the_whole() -> None:
    heard: dict[str, list[list[Tensor]]] = {"whole": [], "split": []}

    def passes(how: str) -> Passes:
        made = Passes(CASES["perceptron"], inputs_learn=True)
        for weight in made.module.parameters():
            seen: list[Tensor] = []
            heard[how].append(seen)
            weight.register_hook(lambda gradient, seen=seen: seen.append(gradient.clone()))
            weight.register_hook(lambda gradient: gradient * 3)
            weight.register_post_accumulate_grad_hook(
                lambda weight, seen=seen: seen.append(weight.grad.clone())
            )
        return made

    expected = passes("whole").whole()
    assert_same_bits(passes("split").halves().interleaved(), expected)
    for seen, others in zip(heard["whole"], heard["split"], strict=True):
        assert len(seen) == 2 * MICRO_BATCHES
        assert all(torch.equal(*pair) for pair in zip(seen, others, strict=True))


def test_hooks_on_activations_run_once() -> None:
    calls, kept = [], []

    def run(m: Calls, x: Tensor) -> Tensor:
        hidden = m.first(x)
        hidden.register_hook(calls.append)
        hidden.retain_grad()
        kept.append(hidden)
        return m.last(hidden)

    module, inputs = Calls(run, first=nn.Linear(6, 6), last=nn.Linear(6, 2)), torch.randn(4, 6)
    outputs, split = module(inputs.requires_grad_()), SplitBackward()
    split.input_half([outputs], [torch.ones_like(outputs)], [inputs])
    split.weight_half()
    assert len(calls) == 1
    assert torch.equal(kept[0].grad, calls[0])


def test_a_gradient_that_does_not_arrive_leaves_weights_without() -> None:
    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            return inputs.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> None:
            return None

    module, inputs = nn.Linear(6, 6), torch.randn(4, 6, requires_grad=True)
    split, outputs = SplitBackward(), Stops.apply(module(inputs))
    split.input_half([outputs], [torch.ones_like(outputs)], [inputs])
    split.weight_half()
    assert inputs.grad is None and module.weight.grad is None and module.bias.grad is None


def test_an_error_in_the_first_half_leaves_nothing_behind() -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            return inputs.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise ValueError("no gradient today")

    module, inputs = nn.Linear(6, 6), torch.randn(4, 6, requires_grad=True)
    outputs, split = module(Fails.apply(inputs)), SplitBackward()
    with no_collection():
        with pytest.raises(ValueError, match="today"):
            split.input_half([outputs], [torch.ones_like(outputs)], [inputs])
        alive = StorageWeakRef(outputs.untyped_storage())
        del outputs, split
        assert alive.expired()
    heard: list[str] = []
    defer(lambda: heard.append("at once"))
    assert heard == ["at once"]


def test_halves_run_for_a_caller_who_records_no_gradients() -> None:
    expected = Passes(CASES["residual block"], inputs_learn=True).whole()
    halves = Passes(CASES["residual block"], inputs_learn=True).halves()
    with torch.no_grad():
        assert_same_bits(halves.interleaved(), expected)


class Sends(torch.autograd.Function):
    """Puts off a part of its backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, heard: list[str]) -> Tensor:
        ctx.heard = heard
        return inputs * weight.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        heard = ctx.heard
        heard.append("now")
        defer(lambda: heard.append("later"))
        heard.append("returned")
        return gradient, gradient.sum(), None


@pytest.mark.parametrize(
    ("inputs_learn", "first", "second"),
    [(True, ["now", "returned"], ["later"]), (False, [], ["now", "later", "returned"])],
    ids=["inside", "first"],
)
def test_deferred_work_runs_in_the_second_half_and_at_once_without(
    inputs_learn: bool, first: list[str], second: list[str]
) -> None:
    heard: list[str] = []
    weight, inputs = nn.Parameter(torch.ones(())), torch.ones(3, requires_grad=inputs_learn)
    split, outputs = SplitBackward(), Sends.apply(inputs, weight, heard)
    split.input_half([outputs], [torch.ones(3)], [inputs])
    assert heard == first
    split.weight_half()
    assert heard == first + second
    split.weight_half()
    assert heard == first + second

    heard.clear()
    torch.autograd.backward(Sends.apply(inputs, weight, heard), torch.ones(3))
    assert heard == ["now", "later", "returned"]
