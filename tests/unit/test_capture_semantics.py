"""What a user's module means in training stays so in the layers that are made of it."""

import copy
import inspect
from itertools import pairwise
from typing import Any

import psutil
import pytest
import torch
from captured_networks import MixtureNetwork, ResidualNetwork, images, tokens
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.errors import InputError
from hpc_lpm.models.capture import capture_model
from hpc_lpm.models.layered import LayeredModel


def vectors(samples: int) -> Tensor:
    return torch.randn(samples, 4, generator=torch.Generator().manual_seed(samples))


def run(layers: list[nn.Module], activation: Any) -> Any:
    for layer in layers:
        activation = layer(activation)
    return activation


def built(model: LayeredModel, training: bool = True) -> list[nn.Module]:
    return [layer.build().train(training) for layer in model.layers]


class Masked(nn.Module):
    """Random in three ways: a module, a function, and numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.drop(self.first(inputs))
        found = functional.dropout(self.second(found), 0.5, training=self.training)
        if self.training:
            found = found * (torch.rand(len(found), 1) < 0.7)
        return found


def test_random_numbers_are_drawn_at_each_run_and_in_training_only() -> None:
    layers = built(capture_model(Masked(), vectors(3)))
    inputs = vectors(20)
    first, second = run(layers, inputs), run(layers, inputs)
    assert not torch.equal(first, second)
    for layer in layers:
        torch.manual_seed(5)
        one = layer(inputs)
        torch.manual_seed(5)
        assert torch.equal(one, layer(inputs))
    for layer in layers:
        layer.eval()
    assert torch.equal(run(layers, inputs), run(layers, inputs))


class Counted(nn.Module):
    """Changes buffers in place, assigns one anew, and leaves some weights unused."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.factors = torch.tensor([1.0, 2.0, 3.0, 4.0])
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("table", torch.ones(6, 6).tril())

    def forward(self, inputs: Tensor) -> Tensor:
        self.count = self.count + 1
        found = self.first(inputs)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(found.mean(0))
        found = torch.relu(found) * self.factors + self.frozen
        return self.second(found) * self.table[:4, :4][1]


def test_buffers_change_as_in_the_module_and_nothing_of_its_state_is_lost() -> None:
    module = Counted()
    model = capture_model(module, vectors(3))
    assert module.count == 0
    names = [name for layer in model.layers for name in layer.original.values()]
    assert sorted(names) == sorted(module.state_dict())
    layers = built(model)
    for samples in (3, 4):
        assert torch.equal(run(layers, vectors(samples)), module(vectors(samples)))
    found = {
        layer.original[own]: value
        for layer, part in zip(model.layers, layers, strict=True)
        for own, value in part.state_dict().items()
    }
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
    trained = {
        layer.original[own]: parameter.requires_grad
        for layer, part in zip(model.layers, layers, strict=True)
        for own, parameter in part.named_parameters()
    }
    assert trained == {name: value.requires_grad for name, value in module.named_parameters()}


class InPlace(nn.Module):
    """Writes into its input, into views and into slices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs.mul_(2)
        found = self.first(inputs)
        found[:, :2].add_(1)
        found = self.second(found)
        found[:, 0] = 0
        return found + inputs


def test_layers_leave_their_input_alone() -> None:
    module = InPlace()
    layers = built(capture_model(module, vectors(3)))
    activation = vectors(5)
    expected = module(activation.clone())
    for layer in layers:
        given = torch.utils._pytree.tree_map(torch.clone, activation)
        after = layer(activation)
        for one, other in zip(
            torch.utils._pytree.tree_leaves(given),
            torch.utils._pytree.tree_leaves(activation),
            strict=True,
        ):
            assert torch.equal(one, other)
        activation = after
    assert torch.equal(activation, expected)


class SharedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.third(self.norm(self.second(self.norm(self.first(inputs)))))


def test_a_buffer_that_changes_is_in_one_layer_with_all_its_users() -> None:
    model = capture_model(SharedNorm(), vectors(3))
    homes = [
        index for index, layer in enumerate(model.layers)
        if "norm.running_mean" in layer.original.values()
    ]  # fmt: skip
    assert homes == [1]
    assert len(model.layers) == 3


class Recurring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.block.weight

    def forward(self, inputs: Tensor) -> Tensor:
        for _ in range(3):
            inputs = torch.tanh(self.block(inputs))
        return self.head(inputs)


def test_what_several_layers_use_is_tied_to_the_first() -> None:
    model = capture_model(Recurring(), vectors(3))
    assert [layer.name for layer in model.layers] == ["block", "block#2", "block#3", "head"]
    places = [(t.owner_layer, t.owner_parameter, t.copy_layer) for t in model.ties]
    assert places == [
        (0, "weight", 1), (0, "bias", 1), (0, "weight", 2), (0, "bias", 2), (0, "weight", 3),
    ]  # fmt: skip
    assert sorted(model.layers[3].original.values()) == ["block.weight", "head.bias"]
    assert model.aliases == {"head.weight": "block.weight"}


def test_layers_bear_the_paths_of_modules_and_tell_which_end_with_them() -> None:
    model = capture_model(ResidualNetwork(), images(3))
    names = [layer.name for layer in model.layers]
    assert names[0] == "stem"
    assert names[-1] == "head"
    assert names[1:5] == [f"blocks.0.{part}" for part in ("conv1", "norm1", "conv2", "norm2")]
    ends = [[(end.path, end.type) for end in layer.ends] for layer in model.layers]
    assert ends[1] == [("blocks.0.conv1", "Conv2d")]
    assert ("blocks.0", "ResidualBlock") in ends[4]
    assert sum(("blocks.0", "ResidualBlock") in several for several in ends) == 1


def test_equal_layers_are_known_as_equal_and_others_are_not() -> None:
    model = capture_model(ResidualNetwork(), images(3))
    kinds = {layer.name: layer.same_as for layer in model.layers}
    assert all(kinds.values())
    for part in ("conv1", "norm1", "conv2"):
        assert len({kinds[f"blocks.{number}.{part}"] for number in range(3)}) == 1
    # The last block's end has the mean over the image in it as well.
    assert kinds["blocks.0.norm2"] == kinds["blocks.1.norm2"] != kinds["blocks.2.norm2"]
    assert kinds["stem"] != kinds["blocks.0.conv1"] != kinds["blocks.0.norm1"] != kinds["head"]


class Cast(nn.Module):
    """Makes a mask and a table of constants for several layers, and uses the input late."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 4)
        self.parts = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.register_buffer("speeds", torch.tensor([1.0, 0.1, 0.01, 0.001]), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = torch.ones(length, length).tril().expand(len(ids), -1, -1)
        table = torch.cos(torch.arange(length)[:, None] * self.speeds)
        hidden = self.embed(ids)
        for part in self.parts:
            hidden = hidden + mask @ part(hidden * table)
        return hidden * (ids > 3).unsqueeze(-1)


def test_constants_do_not_travel_and_inputs_travel_while_they_are_needed() -> None:
    module = Cast()
    model = capture_model(module, tokens(3))
    activation: Any = tokens(5)
    sizes = []
    for layer in built(model):
        activation = layer(activation)
        sizes.append(sum(t.numel() for t in torch.utils._pytree.tree_leaves(activation)))
    assert torch.equal(activation, module(tokens(5)))
    # The hidden state and the tokens, and within a part the branch beside.
    hidden, ids = 5 * 8 * 4, 5 * 8
    assert set(sizes) <= {hidden + ids, 2 * hidden + ids, hidden}
    assert sizes[-1] == hidden


def test_a_model_can_be_built_again_until_its_weights_are_released() -> None:
    model = capture_model(MixtureNetwork(), tokens(3))
    first = model.build_layer(3, seed=0)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1)
    again = [model.build_layer(3, seed) for seed in (0, 7)]
    assert all(
        torch.equal(one, other)
        for one, other in zip(again[0].parameters(), again[1].parameters(), strict=True)
    )
    model.release(keep=[3])
    model.build_layer(3, 0)
    with pytest.raises(InputError, match="weights of this layer have been released"):
        model.build_layer(2, 0)


def test_released_weights_give_their_memory_back() -> None:
    process = psutil.Process()
    module = nn.Sequential(*[nn.Linear(400, 400) for _ in range(100)])
    model = capture_model(nn.Sequential(module), torch.randn(2, 400))
    size = sum(parameter.nbytes for parameter in module.parameters())
    del module
    before = process.memory_info().rss
    model.release(keep=[0])
    assert process.memory_info().rss < before - 0.8 * size


def test_a_built_layer_can_be_copied_and_shows_its_code_in_tracebacks() -> None:
    layer = copy.deepcopy(built(capture_model(Masked(), vectors(3)))[0])
    source = inspect.getsource(layer._training_programme.code)
    assert "linear" in source
    with pytest.raises(RuntimeError) as caught:
        layer(torch.zeros(2, 3))
    assert "linear" in "".join(str(entry) for entry in caught.traceback)


def test_layers_do_as_few_operations_as_the_module() -> None:
    module = ResidualNetwork()
    layers = built(capture_model(module, images(3)))
    counts = []
    for function in (module, lambda inputs: run(layers, inputs)):
        with torch.profiler.profile() as profile:
            function(images(4))
        counts.append(len([e for e in profile.events() if e.name.startswith("aten::")]))
    assert counts[1] <= counts[0]


def test_a_boundary_hands_on_one_tensor_between_blocks() -> None:
    model = capture_model(ResidualNetwork(), images(3))
    activation: Any = images(3)
    kinds = []
    for layer, part in zip(model.layers, built(model), strict=True):
        activation = part(activation)
        if any(end.type == "ResidualBlock" for end in layer.ends):
            kinds.append(type(activation))
    assert kinds == [Tensor, Tensor, Tensor]


def test_one_sample_is_enough_of_an_example() -> None:
    module = MixtureNetwork().eval()
    layers = built(capture_model(module, tokens(1)), training=False)
    for samples in (1, 4):
        assert torch.equal(run(layers, tokens(samples)), module(tokens(samples)))


def test_names_are_unique() -> None:
    for module, inputs in ((ResidualNetwork(), images(3)), (MixtureNetwork(), tokens(3))):
        names = [layer.name for layer in capture_model(module, inputs).layers]
        assert all(one != other for one, other in pairwise(sorted(names)))


def test_layers_run_on_whatever_device_they_are_moved_to() -> None:
    for module, inputs in ((Cast(), tokens(3)), (MixtureNetwork(), tokens(3))):
        activation: Any = inputs.to("meta")
        for layer in built(capture_model(module, inputs)):
            activation = layer.to("meta")(activation)
            tensors = torch.utils._pytree.tree_leaves(activation)
            assert all(tensor.device.type == "meta" for tensor in tensors)
