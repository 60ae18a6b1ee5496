"""The optimizer muon: which parameters it orthogonalises, and that both halves are torch's own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.cli.train import _print_result
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.parameter_groups import group_parameters
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.models.capture import capture_model
from hpc_lpm.models.hidden_matrices import hidden_matrices, weight_roles
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.listed import listed_model
from hpc_lpm.models.parameter_names import ParameterNames
from hpc_lpm.models.registry import create_model
from hpc_lpm.options import OptimizerSettings

TEXT = f"text:{Path(__file__)},sequence=8"
GPT = "gpt,layers=1,width=8,heads=2"
BLOCK = {
    "block0.attention.query_key_value.weight",
    "block0.attention.projection.weight",
    "block0.feed_forward.up.weight",
    "block0.feed_forward.down.weight",
}


def matrices(model: LayeredModel) -> set[str]:
    roles = [
        role
        for index in reversed(range(len(model.layers)))
        for role in weight_roles(model, index, model.build_layer(index, 0))
    ]
    names = ParameterNames(model)
    return {names.of(*place)[0] for place in hidden_matrices(roles)}


class Peculiar(nn.Module):
    """A network of a user's with parameters of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.position_embedding = nn.Parameter(torch.zeros(4, 6))
        self.norm = nn.LayerNorm((4, 6))
        self.experts = nn.Parameter(torch.zeros(2, 6, 6))
        self.mix = nn.Parameter(torch.randn(6, 6))
        self.column = nn.Linear(6, 1)
        self.convolution = nn.Conv1d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.position_embedding)
        x = x @ self.mix + x @ self.experts.sum(0)
        x = x * self.column(x)
        return self.head(self.convolution(x.transpose(1, 2)).transpose(1, 2))


class Tied(nn.Module):
    """A network of a user's whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.between = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.between(self.words(tokens)))


def listed() -> LayeredModel:
    shared = nn.Linear(6, 6, bias=False)
    return listed_model("listed", [shared, nn.Linear(6, 6), nn.Tanh(), shared])


TOKENS = torch.zeros(2, 4, dtype=torch.long)
CASES: dict[str, tuple[Callable[[], LayeredModel], set[str]]] = {
    "gpt": (lambda: create_model(GPT, load_dataset(TEXT).shape), BLOCK),
    "tied gpt": (lambda: create_model(f"{GPT},tied=true", load_dataset(TEXT).shape), BLOCK),
    "mlp": (
        lambda: create_model("mlp,width=12,layers=3", load_dataset("digits,size=8").shape),
        {"hidden1.linear.weight", "hidden2.linear.weight"},
    ),
    "captured": (lambda: capture_model(Peculiar(), TOKENS), {"mix", "convolution.weight"}),
    "captured and tied": (lambda: capture_model(Tied(), TOKENS), {"between.weight"}),
    "a tied head that is no embedding": (listed, {"layer1.weight"}),
}


@pytest.mark.parametrize("case", CASES)
def test_hidden_matrices_are_those_between_the_embeddings_and_the_head(case: str) -> None:
    make, expected = CASES[case]
    assert matrices(make()) == expected


def test_convolutions_are_hidden_matrices_and_normalisations_are_none() -> None:
    model = create_model("resnet20,width=4", load_dataset("digits,size=8").shape)
    found = matrices(model)
    assert len(found) == 19
    assert all(".conv" in name or ".shortcut" in name for name in found)


def given(parameters: list[nn.Parameter], update: int) -> None:
    for number, parameter in enumerate(parameters):
        generator = torch.Generator().manual_seed(97 * update + number)
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_updates_are_those_of_torchs_muon_on_matrices_and_adamw_on_the_rest(
    memory_format: torch.memory_format,
) -> None:
    model = listed_model(
        "network",
        [
            lambda: nn.Conv2d(3, 5, 3),
            lambda: nn.BatchNorm2d(5),
            lambda: nn.Linear(5, 4),
            lambda: nn.Linear(4, 2),
        ],
    )
    layers = {i: model.build_layer(i, 0).to(memory_format=memory_format) for i in range(4)}
    ours = [p for layer in layers.values() for p in layer.parameters()]
    settings = OptimizerSettings.model_validate(
        {
            **{"name": "muon", "lr": 0.03, "weight_decay": 0.2, "no_decay": ["*.bias"]},
            **{"lr_scale": ["layer2.*=0.5"]},
            "options": {"momentum": 0.9, "nesterov": False, "ns_steps": 4, "betas": (0.8, 0.9)},
        }
    )
    optimizer = build_optimizer(
        ours, settings, group_parameters(model, layers, settings, SingleProcess())
    )

    kernel, kernel_bias, scale, shift, hidden, hidden_bias, head, head_bias = (
        nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format)) for p in ours
    )
    by_hand = [kernel, kernel_bias, scale, shift, hidden, hidden_bias, head, head_bias]
    flat = nn.Parameter(kernel.detach().clone().reshape(5, 27))
    muon = torch.optim.Muon(
        [{"params": [flat]}, {"params": [hidden], "lr": 0.015}],
        **{"lr": 0.03, "weight_decay": 0.2, "momentum": 0.9, "nesterov": False, "ns_steps": 4},
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        [
            {"params": [kernel_bias, shift, head_bias], "weight_decay": 0.0},
            {"params": [scale, head]},
            {"params": [hidden_bias], "weight_decay": 0.0, "lr": 0.015},
        ],
        **{"lr": 0.03, "weight_decay": 0.2, "betas": (0.8, 0.9)},
    )
    for update in range(3):
        given(ours, update)
        optimizer.step()
        given(by_hand, update)
        assert kernel.grad is not None
        flat.grad = kernel.grad.reshape(5, 27)
        muon.step()
        adamw.step()
        kernel.data = flat.data.view(kernel.shape)
        for one, other in zip(ours, by_hand, strict=True):
            assert torch.equal(one, other)
    assert ours[0].is_contiguous(memory_format=memory_format)


def test_a_run_says_which_parameters_each_rule_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = checked_settings(
        model="mlp,width=12,layers=3",
        dataset="digits,size=8",
        **{"steps": 2, "batch_size": 16, "micro_batches": 1},
        optimizer={"name": "muon", "lr": 0.02, "lr_scale": ["hidden2.linear.weight=2"]},
    )
    training = Training(settings, SingleProcess())
    result = training.run(tmp_path, None)
    assert result is not None
    told = json.loads(result.model_dump_json())["parameter_groups"]
    biases = ["hidden1.linear.bias", "hidden2.linear.bias"]
    assert [(group["rule"], group["lr"], group["parameters"]) for group in told] == [
        ("adamw", 0.02, [*biases, "output.weight", "output.bias"]),
        ("muon", 0.02, ["hidden1.linear.weight"]),
        ("muon", 0.04, ["hidden2.linear.weight"]),
    ]
    assert training.group_rates(0) == [0.02, 0.02, 0.04]
    _print_result(result, tmp_path)
    assert "parameters updated: 4 by adamw, 2 by muon;" in capsys.readouterr().out
