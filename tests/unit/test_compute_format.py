"""Precision and memory format change how layers compute and nothing else."""

import pytest
import torch
from torch import nn

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checkpoint.tensors import weights_sha256
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import PLAIN, ComputeFormat, compute_format_named
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.sharing import with_shared_parts_known
from hpc_lpm.profiling.layers import profile_model

CPU = torch.device("cpu")
BF16 = ComputeFormat("bf16")
CHANNELS_LAST = ComputeFormat("fp32", "channels_last")
GOOD = {"model": "mlp", "dataset": "digits", "strategy": "sequential", "epochs": 1}


def test_weights_and_their_gradients_stay_single_precision() -> None:
    layer = nn.Linear(4, 3)
    with BF16.autocast(CPU):
        outputs = layer(torch.randn(2, 4))
    assert outputs.dtype == torch.bfloat16
    loss = BF16.loss(nn.functional.cross_entropy)(outputs, torch.tensor([0, 2]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {torch.float32}


def test_a_leaf_read_twice_gets_the_sum_of_single_precision_gradients() -> None:
    # As within a whole model, where the same tensor is no leaf; a cut must not change the sum.
    torch.manual_seed(0)
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    leaf = torch.randn(8, 64, requires_grad=True)

    def gradient(inputs: torch.Tensor) -> torch.Tensor:
        leaf.grad = None
        with BF16.autocast(CPU):
            outputs = first(inputs) + second(inputs)
        outputs.float().pow(2).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    assert torch.equal(gradient(leaf), gradient(leaf * 1.0))


def test_images_and_their_weights_change_order_and_the_hash_does_not() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 4))
    weight, before = layer[0].weight, weights_sha256({0: layer}, SingleProcess())
    CHANNELS_LAST.arrange(layer)
    assert layer[0].weight is weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert weights_sha256({0: layer}, SingleProcess()) == before
    images = torch.randn(2, 3, 8, 8)
    assert not CHANNELS_LAST.arranged(images).is_contiguous()
    assert PLAIN.arranged(images) is images


def test_text_has_no_channels_to_put_last() -> None:
    layer, tokens = nn.LayerNorm(5), torch.zeros(2, 7, dtype=torch.int64)
    before = layer.weight.data_ptr()
    CHANNELS_LAST.arrange(layer)
    assert layer.weight.data_ptr() == before
    assert CHANNELS_LAST.arranged(tokens) is tokens


@pytest.mark.parametrize("model", ["resnet20,width=4", "vgg11,width=4"])
def test_layers_keep_images_in_channels_last_order(model: str) -> None:
    # One layer that does not would make every later one convert.
    chain = create_model(model, load_dataset("digits,size=16").shape)
    passing = CHANNELS_LAST.arranged(torch.randn(2, 1, 16, 16))
    for index in range(len(chain.layers) - 1):
        layer = chain.build_layer(index, 0)
        CHANNELS_LAST.arrange(layer)
        passing = layer(passing)
        for tensor in passing if isinstance(passing, tuple) else (passing,):
            assert tensor.is_contiguous(memory_format=torch.channels_last), index


@pytest.mark.parametrize(
    ("wrong", "accepted"),
    [({"precision": "fp16"}, "precision.*bf16"), ({"memory_format": "nhwc"}, "channels_last")],
)
def test_an_unknown_format_is_refused_by_train_and_by_profile(
    wrong: dict[str, str], accepted: str
) -> None:
    with pytest.raises(InputError, match=accepted):
        checked_settings(**GOOD, **wrong)
    with pytest.raises(InputError, match=accepted):
        compute_format_named(**{"precision": "fp32", "memory_format": "contiguous", **wrong})


def test_a_profile_in_bfloat16_halves_what_crosses() -> None:
    data = load_dataset("digits,size=16")
    model = create_model("resnet20,width=4", data.shape)
    indices = torch.arange(4)
    inputs, targets = data.train.inputs(indices), data.train.targets(indices)
    single, half = (
        profile_model(model, inputs, targets, repeats=1, compute_format=form)
        for form in (PLAIN, ComputeFormat("bf16", "channels_last"))
    )
    assert [2 * layer.output_bytes for layer in half] == [layer.output_bytes for layer in single]
    assert [layer.parameter_bytes for layer in half] == [layer.parameter_bytes for layer in single]


def test_profiling_leaves_a_module_of_the_users_own_as_it_was() -> None:
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    model = LayeredModel("own", (Layer("all", lambda: own),), cross_entropy, count_correct)
    model = with_shared_parts_known(model)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    inputs, targets = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    form = ComputeFormat("bf16", "channels_last")
    profile_model(model, inputs, targets, repeats=1, compute_format=form)
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.stride() == before[name].stride()
        assert tensor.dtype == before[name].dtype
    assert all(parameter.grad is None for parameter in own.parameters())
