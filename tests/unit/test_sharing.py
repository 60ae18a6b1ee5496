"""Modules and parameters that builders hand out several times are found by identity."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Layer, LayeredModel, Tie, count_correct, cross_entropy
from hpc_lpm.models.sharing import with_shared_parts_known


def known(*builders: Callable[[], nn.Module]) -> LayeredModel:
    layers = tuple(Layer(f"layer{number}", build) for number, build in enumerate(builders))
    return with_shared_parts_known(LayeredModel("own", layers, cross_entropy, count_correct))


def test_every_further_use_of_a_module_is_a_tie_to_the_first() -> None:
    once = nn.Linear(3, 3)
    model = known(lambda: once, nn.ReLU, lambda: nn.Sequential(once, nn.ReLU()), lambda: once)
    assert model.ties == (
        *(Tie(0, name, 2, f"0.{name}") for name in ("weight", "bias")),
        *(Tie(0, name, 3, name) for name in ("weight", "bias")),
    )


def test_layers_are_copies_of_a_shared_module_with_its_values() -> None:
    once = nn.Linear(3, 3)
    model = known(lambda: once, lambda: once)
    first, second = model.build_layer(0, 0), model.build_layer(1, 0)
    with torch.no_grad():
        once.weight.zero_()
        first.get_parameter("weight").add_(1)
    assert first is not once
    assert not torch.equal(first.get_parameter("weight"), second.get_parameter("weight"))
    assert torch.equal(model.build_layer(0, 5).get_parameter("weight"), second.weight)


def test_a_parameter_alone_may_be_shared() -> None:
    weight = nn.Parameter(torch.ones(2, 2))

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ParameterList([weight])

    assert known(Uses, nn.ReLU, Uses).ties == (Tie(0, "inner.0", 2, "inner.0"),)


def test_modules_that_are_built_anew_share_nothing() -> None:
    model = known(lambda: nn.Linear(2, 2), lambda: nn.Linear(2, 2), lambda: nn.BatchNorm1d(2))
    assert model.ties == ()
    assert len(model.layers) == 3


class RefersToItself(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)
        self.own_forward = self.forward


def test_a_module_that_refers_to_itself_is_built_anew_with_each_seed() -> None:
    model = known(RefersToItself, nn.ReLU, RefersToItself)
    assert model.ties == ()
    one, again, other = (model.build_layer(0, seed).get_parameter("weight") for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_what_one_use_of_a_parameter_is_tied_to_is_tied_to_every_use() -> None:
    once = nn.Linear(2, 2, bias=False)
    for places, given, found in (
        ((1, 2), weight(0, 2), (weight(0, 2), weight(0, 1))),
        ((0, 2), weight(1, 2), (weight(0, 2), weight(0, 1))),
        ((0, 2), weight(0, 2), (weight(0, 2),)),
    ):
        layers = tuple(
            Layer(f"layer{n}", (lambda: once) if n in places else lambda: nn.Linear(2, 2))
            for n in range(3)
        )
        model = with_shared_parts_known(LayeredModel("own", layers, ties=(given,)))
        assert model.ties == found


def test_layers_that_share_buffers_are_one_with_all_between() -> None:
    norm, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model = known(nn.ReLU, lambda: norm, lambda: other, lambda: norm, lambda: other, nn.Tanh)
    assert [layer.name for layer in model.layers] == ["layer0", "layer1 to layer4", "layer5"]
    built = model.build_layer(1, 0)
    assert built.get_submodule("0") is built.get_submodule("2")
    assert built.get_submodule("1") is built.get_submodule("3")


def test_a_module_that_cannot_be_copied_is_named() -> None:
    class Uncopiable(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("not me")

    once = Uncopiable(2, 2)
    with pytest.raises(InputError, match=r"layer 'layer1' .* cannot be copied, TypeError: not me"):
        known(nn.ReLU, lambda: once)


def weight(owner: int, copy: int) -> Tie:
    return Tie(owner, "weight", copy, "weight")


def tied(*ties: Tie) -> LayeredModel:
    layers = tuple(Layer(f"layer{number}", lambda: nn.Linear(2, 2)) for number in range(3))
    return LayeredModel("own", layers, ties=ties)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((weight(0, 1), weight(1, 2)), (weight(0, 1), weight(0, 2))),
        ((weight(1, 2), weight(0, 1)), (weight(0, 2), weight(0, 1))),
        ((weight(0, 1), weight(0, 2), weight(1, 2)), (weight(0, 1), weight(0, 2))),
    ],
)
def test_what_is_tied_to_a_copy_is_a_copy_of_the_first(
    given: tuple[Tie, ...], kept: tuple[Tie, ...]
) -> None:
    model = tied(*given)
    assert model.ties == kept
    first, *others = (model.build_layer(index, 3).get_parameter("weight") for index in range(3))
    assert all(torch.equal(first, other) for other in others)


def test_a_copy_of_two_that_are_not_tied_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"'weight' of layer 2 to 'weight' of layer 0 and to 'weight' of layer 1,"
    ):
        tied(weight(0, 2), weight(1, 2))


def test_parameters_of_two_shapes_are_not_tied() -> None:
    model = tied(Tie(0, "bias", 1, "weight"))
    with pytest.raises(InputError, match=r"layer 1 .* 'weight', of shape \[2, 2\], to 'bias' of"):
        model.build_layer(1, 0)
