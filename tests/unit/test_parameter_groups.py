"""Patterns of names choose parameters that have a learning rate or a weight decay of their own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hpc_lpm.cli.option_values import document_of
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.job import Job, SingleProcess
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.parameter_groups import Group, GroupedParameters, group_parameters
from hpc_lpm.engine.settings import checked_settings, settings_fields
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError
from hpc_lpm.models.capture import capture_model
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.options import OptimizerSettings

pytestmark = pytest.mark.usefixtures("one_thread")

MLP = "mlp,width=12,layers=3"
DATA = "digits,size=8"
TIED = "gpt,layers=1,width=8,heads=2,tied=true"


def grouped(
    model: LayeredModel,
    layers: range | None = None,
    job: Job | None = None,
    **patterns: list[str],
) -> tuple[GroupedParameters, dict[int, nn.Module]]:
    held = {i: model.build_layer(i, 0) for i in layers or range(len(model.layers))}
    settings = OptimizerSettings.model_validate({"weight_decay": 0.1, **patterns})
    return group_parameters(model, held, settings, job or SingleProcess()), held


def names_without_decay(model: LayeredModel, *patterns: str) -> set[str]:
    found, _ = grouped(model, no_decay=list(patterns))
    return {name for group, names in found.listed.items() if not group.decays for name in names}


def mlp() -> LayeredModel:
    return create_model(MLP, load_dataset(DATA).shape)


class TwoHeads(nn.Module):
    """A module of a user's: a norm over two dimensions, and an output that shares its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm((4, 6))
        self.scale = nn.Parameter(torch.ones(()))
        self.between = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.between(self.norm(self.embed(tokens)) * self.scale))


def test_names_are_those_of_the_users_state_dict_and_any_name_of_a_tied_weight_chooses_it() -> None:
    module = TwoHeads()
    model = capture_model(module, torch.randint(0, 11, (3, 4)))
    for pattern in ("head.weight", "embed.weight", "head.w*"):
        assert names_without_decay(model, pattern) == {"embed.weight"}
    biases = {"norm.bias", "scale", "between.bias", "head.bias"}
    assert names_without_decay(model, "norm-and-bias") == biases
    assert names_without_decay(model, "norm-and-bias", "norm.*") == biases | {"norm.weight"}
    found, _ = grouped(model, no_decay=["*"])
    assert set(found.listed[Group(decays=False)]) == {n for n, _ in module.named_parameters()}


def test_the_last_of_several_factors_counts_and_decay_is_told_apart() -> None:
    found, layers = grouped(
        mlp(), no_decay=["*.bias"], lr_scale=["*=0.5", "output.*=10", "hidden1.linear.weight=0"]
    )
    assert {group: len(names) for group, names in found.listed.items()} == {
        Group(): 0,
        Group(0.0): 1,
        Group(0.5, decays=False): 2,
        Group(0.5): 1,
        Group(10.0): 1,
        Group(10.0, decays=False): 1,
    }
    optimizer = build_optimizer(
        [p for layer in layers.values() for p in layer.parameters()],
        OptimizerSettings(lr=0.2, weight_decay=0.1),
        found,
    )
    made = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    output = dict(layers[2].named_parameters())
    assert (made[id(output["bias"])]["lr"], made[id(output["bias"])]["weight_decay"]) == (2.0, 0.0)
    assert made[id(output["weight"])]["weight_decay"] == 0.1


class OtherStages(SingleProcess):
    """A rank beside others, which have told what they found when all layers were theirs."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def all_gather(self, value: object) -> list[object]:
        self.told.append(value)
        return self.told


def test_a_stage_that_holds_only_some_layers_finds_the_same_groups() -> None:
    tied = create_model(TIED, load_dataset(f"text:{Path(__file__)},sequence=8").shape)
    patterns = {"no_decay": ["norm-and-bias", "head.weight"], "lr_scale": ["block0.*=3"]}
    job = OtherStages()
    whole, layers = grouped(tied, job=job, **patterns)
    assert len({whole.of.get(p) for layer in layers.values() for p in layer.parameters()}) == 4
    for index, layer in layers.items():
        part, alone = grouped(tied, range(index, index + 1), job=job, **patterns)
        for name, parameter in alone[index].named_parameters():
            assert part.of.get(parameter) == whole.of.get(dict(layer.named_parameters())[name])
        assert part.listed == whole.listed
    embedding = dict(layers[0].named_parameters())["token"]
    assert whole.of[embedding] == Group(decays=False), "by the name of its copy in the head"


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (
            {"no_decay": ["*.biass"]},
            ["--no-decay '*.biass'", "hidden1.linear.weight", "its 6 are"],
        ),
        ({"lr_scale": ["output.weigth=2"]}, ["--lr-scale", "did you mean 'output.weight'"]),
        ({"no_decay": ["OUTPUT.*"]}, ["matches no parameter"]),
        ({"no_decay": [""]}, ["matches no parameter"]),
    ],
)
def test_a_pattern_without_parameters_is_refused_with_names_that_there_are(
    patterns: dict[str, list[str]], words: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        grouped(mlp(), **patterns)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("text", ["head", "head=", "=2", "head=-1", "head=nan", "head=inf", "a=b"])
def test_a_factor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"lr scale is .*PATTERN=FACTOR"):
        checked_settings(model=MLP, dataset=DATA, steps=1, optimizer={"lr_scale": [text]})


def test_parameters_without_decay_where_nothing_decays_are_refused() -> None:
    settings = checked_settings(model=MLP, dataset=DATA, steps=1, optimizer={"no_decay": ["*"]})
    with pytest.raises(InputError, match="--weight-decay is 0"):
        check_run(PlannedRun(settings, None, 1))


def test_options_are_repeatable_and_keep_their_order() -> None:
    given = {"optimizer__lr_scale": ["*=2", "a=1"], "optimizer__no_decay": ["norm-and-bias"]}
    document = document_of(settings_fields("sequential"), given)
    assert document == {"optimizer": {"lr_scale": ["*=2", "a=1"], "no_decay": ["norm-and-bias"]}}


def plain_training(steps: int, size: int) -> list[Tensor]:
    """The same training as any user of torch writes it, groups by hand."""
    data = load_dataset(DATA)
    chain = create_model(MLP, data.shape)
    model = nn.Sequential(*(chain.build_layer(i, 0) for i in range(3)))
    optimizer = torch.optim.AdamW(
        [
            {"params": [model[0].linear.weight, model[1].linear.weight]},
            {"params": [model[0].linear.bias, model[1].linear.bias], "weight_decay": 0.0},
            {"params": [model[2].weight], "lr": 0.002},
            {"params": [model[2].bias], "lr": 0.002, "weight_decay": 0.0},
        ],
        lr=0.02,
        weight_decay=0.3,
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, total_iters=1)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    for step in range(steps):
        chunk = order[step * size : (step + 1) * size]
        optimizer.zero_grad()
        chain.loss(model(data.train.inputs(chunk)), data.train.targets(chunk)).backward()
        optimizer.step()
        schedule.step()
    return [parameter.detach() for parameter in model.parameters()]


def test_training_with_groups_is_that_of_plain_torch_and_says_its_groups(tmp_path: Path) -> None:
    training = Training(
        checked_settings(
            model=MLP,
            dataset=DATA,
            steps=3,
            batch_size=16,
            micro_batches=1,
            optimizer={
                **{"name": "adamw", "lr": 0.02, "weight_decay": 0.3},
                **{"no_decay": ["norm-and-bias"], "lr_scale": ["output.*=0.1"]},
            },
            learning_rate={"warmup_steps": 2},
        ),
        SingleProcess(),
    )
    result = training.run(tmp_path, None)
    assert result is not None
    told = json.loads(result.model_dump_json())["parameter_groups"]
    assert [(group["lr"], group["weight_decay"], group["parameters"]) for group in told] == [
        (0.02, 0.3, ["hidden1.linear.weight", "hidden2.linear.weight"]),
        (0.02, 0.0, ["hidden1.linear.bias", "hidden2.linear.bias"]),
        (0.002, 0.3, ["output.weight"]),
        (0.002, 0.0, ["output.bias"]),
    ]
    assert training.group_rates(0) == [0.01, 0.01, 0.001, 0.001]
    assert training.group_rates(2) == [0.02, 0.02, 0.002, 0.002]
    saved = load_file(next(tmp_path.glob("checkpoint/step-3/rank-0.safetensors")))
    expected = plain_training(3, 16)
    names = [f"layer.{i}.{n}" for i in (0, 1) for n in ("linear.weight", "linear.bias")]
    for name, parameter in zip([*names, "layer.2.weight", "layer.2.bias"], expected, strict=True):
        assert torch.equal(saved[name], parameter), name
