"""A module of a script becomes a chain of layers with the script's loss, and stays as it was."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.errors import InputError
from hpc_lpm.models.example_inputs import describe_inputs, made_up_inputs
from hpc_lpm.models.layered import Layer, LayeredModel
from hpc_lpm.models.own_module import count_samples, model_of
from hpc_lpm.models.state_names import original_state

INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 1, 2, 0])


class Counting(nn.Module):
    """Has a saved buffer that each pass changes, and one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6))
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("table", torch.ones(6), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * inputs.detach().mean(0))
        return (inputs - self.mean) * self.table * self.weight


class Net(nn.Module):
    """Tied, frozen and unused weights, dropout, and a part in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.first.weight
        self.counting = Counting()
        self.head = nn.Linear(6, 3)
        self.spare = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.drop(torch.relu(self.norm(self.first(inputs))))
        return self.head(self.counting(self.again(hidden)).relu())


def sequence() -> nn.Sequential:
    first = nn.Linear(6, 6)
    last = nn.Linear(6, 6)
    last.weight = first.weight
    inner = nn.Sequential(nn.ReLU(), last)
    return nn.Sequential(first, Counting(), nn.Dropout(0.5), inner, first, nn.Linear(6, 3))


def everything_of(module: nn.Module) -> list[Any]:
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    return [
        [(name, id(t), t.tolist(), t.requires_grad, t.data_ptr(), t.grad) for name, t in tensors],
        [part.training for part in module.modules()],
        [torch.get_rng_state().tolist(), random.getstate(), torch.is_grad_enabled()],
    ]


@pytest.mark.parametrize("made", [Net, sequence], ids=["captured", "sequential"])
def test_the_users_module_stays_as_it_was_and_layers_hold_copies(
    made: Callable[[], nn.Module],
) -> None:
    module = made()
    functional.cross_entropy(module(INPUTS), TARGETS).backward()
    module.get_parameter("head.bias" if made is Net else "5.bias").requires_grad_(False)
    next(part for part in module.modules() if isinstance(part, nn.Linear)).eval()
    before, state = everything_of(module), module.state_dict()
    with torch.no_grad():
        before[-1][-1] = False
        model = model_of(module, INPUTS, loss=functional.cross_entropy)
        layers = {index: model.build_layer(index, seed=7) for index in range(len(model.layers))}
        assert everything_of(module) == before
    model.release()
    assert model.name == type(module).__name__
    held = original_state(model, layers)
    assert held.keys() == state.keys(), "the names of the user's own state_dict"
    for name, tensor in state.items():
        assert torch.equal(held[name], tensor)
        assert held[name].data_ptr() != tensor.data_ptr()
    assert all(
        parameter.grad is None for each in layers.values() for parameter in each.parameters()
    )
    frozen = [p for each in layers.values() for p in each.parameters() if not p.requires_grad]
    assert [tuple(parameter.shape) for parameter in frozen] == [(3,)]
    module.eval()
    outputs = INPUTS
    for layer in layers.values():
        outputs = layer.eval()(outputs)
    assert torch.equal(outputs, module(INPUTS))


def test_a_sequence_with_a_forward_or_a_hook_of_its_own_is_captured_whole() -> None:
    class Doubling(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    hooked = nn.Sequential(nn.Linear(6, 3))
    hooked.register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    for module in (Doubling(nn.Linear(6, 3)), hooked):
        model = model_of(module, INPUTS, loss=nn.CrossEntropyLoss())
        outputs = INPUTS
        for index in range(len(model.layers)):
            outputs = model.build_layer(index, 0)(outputs)
        assert torch.equal(outputs, module(INPUTS))


def test_a_cache_that_a_configuration_asks_for_is_left_out() -> None:
    class Cache:
        """What torch.export knows nothing of."""

    class Generating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(use_cache=True)
            self.head = nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> dict[str, Any]:
            cached = {"cache": Cache()} if self.config.use_cache else {}
            return {"logits": self.head(inputs), **cached}

    module = Generating()
    model = model_of(module, INPUTS, loss=functional.cross_entropy)
    assert torch.equal(model.build_layer(0, 0)(INPUTS), module(INPUTS)["logits"])
    assert module.config.use_cache


def test_inputs_may_be_several_and_may_require_a_gradient() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return self.linear(first.add_(second))

    inputs = INPUTS.clone(), INPUTS.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        several = model_of(Adding(), inputs, loss=functional.cross_entropy)
        named = model_of(Adding(), {"second": INPUTS, "first": INPUTS}, loss=functional.mse_loss)
    assert torch.equal(inputs[0], INPUTS)
    assert inputs[1].grad is None
    assert [layer.name for layer in several.layers] == [layer.name for layer in named.layers]


def test_a_chain_of_layers_keeps_all_but_its_loss() -> None:
    chain = LayeredModel("mine", (Layer("one", lambda: nn.Linear(6, 3)),))
    model = model_of(chain, loss=lambda outputs, targets: outputs.mean())
    assert (model.name, model.correct) == ("mine", chain.correct)
    assert model.loss(torch.ones(2, 3), TARGETS).item() == 1


def test_a_loss_with_weights_follows_the_outputs_and_leaves_the_users_alone() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    outputs = torch.randn(4, 3)
    found = model_of(nn.Linear(6, 3), INPUTS, loss=loss).loss
    assert torch.equal(found(outputs, TARGETS), loss(outputs, TARGETS))
    assert found(outputs.to("meta"), TARGETS.to("meta")).device.type == "meta"
    assert loss.weight is not None
    assert loss.weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("mse", "the loss is a str, .* such as torch.nn.functional.cross_entropy"),
        (nn.CrossEntropyLoss, "the class CrossEntropyLoss, .* write CrossEntropyLoss()"),
        (nn.CrossEntropyLoss(reduction="none"), "reduction='none'"),
        (nn.Linear(3, 1), "Linear has parameters, which no stage would train"),
    ],
)
def test_what_is_no_loss_is_refused_at_once(loss: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        model_of(nn.Linear(6, 3), INPUTS, loss=loss)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda outputs, targets: (outputs - 1) ** 2, r"returned float32\[4, 3\], accepted is a"),
        (lambda outputs, targets: outputs.mean().item(), "returned float, accepted is a tensor"),
        (lambda outputs, targets: outputs.mean().detach(), "without its history"),
        (
            lambda outputs, targets: outputs.logits.mean(),
            r"raises AttributeError: .* on outputs float32\[4, 3\] and targets int64\[4\]",
        ),
    ],
)
def test_a_loss_that_fails_says_what_it_was_given(loss: Any, sentence: str) -> None:
    model = model_of(nn.Linear(6, 3), INPUTS, loss=loss)
    with pytest.raises(InputError, match=sentence):
        model.loss(torch.randn(4, 3, requires_grad=True), TARGETS)


def compiled() -> nn.Module:
    module = Net()
    module.compile()
    return module


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: Net, r"the class Net, .* write Net\(\)"),
        (lambda: [nn.Linear(6, 3)], r"of type list, .* nn.Sequential\(...\)"),
        (lambda: nn.Sequential(nn.ReLU()), "has no parameters, so there is nothing to train"),
        (lambda: nn.DataParallel(Net()), "wrapped in DataParallel, .* give model.module"),
        (lambda: nn.Sequential(torch.compile(Net())), "compiled by torch.compile"),
        (compiled, "compiled by torch.compile"),
        (lambda: torch.jit.script(nn.Linear(6, 3)), "compiled by torch.jit"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), r"is lazy: 0.weight .* model\(inputs\)"),
        (lambda: nn.Linear(6, 3, device="meta"), r"has weight on meta, .* call model.cpu\(\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_is_no_plain_module_on_the_host_is_refused(
    made: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        model_of(made(), INPUTS, loss=functional.cross_entropy)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (None, "inputs are NoneType without a tensor"),
        (torch.tensor(1.0), "inputs are a single number"),
        (torch.randn(0, 6), "inputs hold no sample"),
        (torch.randn(4, 5), "Linear raises RuntimeError: .* correct the module, or the inputs"),
    ],
)
def test_inputs_that_the_module_cannot_take_are_refused(inputs: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        model_of(nn.Linear(6, 3), inputs, loss=functional.cross_entropy)


def test_inputs_without_elements_are_made_up_in_their_shape_and_type() -> None:
    whole = torch.zeros(4, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    described = describe_inputs((INPUTS, *whole), 4)
    assert described is not None
    made: Any = made_up_inputs(described)
    samples = len(made[0])
    assert [part.shape for part in made] == [(samples, 6), (samples, 0), (0,)]
    assert [part.dtype for part in made] == [torch.float32, torch.int64, torch.bool]


def test_samples_are_counted_in_inputs_and_targets() -> None:
    assert count_samples({"ids": INPUTS, "mask": INPUTS}, TARGETS) == 4
    with pytest.raises(InputError, match="inputs of 4 samples and targets of 3"):
        count_samples(INPUTS, TARGETS[:3])
