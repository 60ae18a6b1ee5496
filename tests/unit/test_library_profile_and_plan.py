"""`hpc_lpm.profile` and `hpc_lpm.plan` make what the commands make, and leave the script alone."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hpc_lpm
from hpc_lpm.cli import plan, profile  # noqa: F401  registers the commands
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_DONE, run_guarded
from hpc_lpm.engine.initialize import _settings_of
from hpc_lpm.engine.job import start_job
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.keyword_errors import in_keywords
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.own_module import model_of
from hpc_lpm.planning.model_checks import check_layer_names, check_ranks, other_layer
from hpc_lpm.profile_file import LayerProfile, Link, LinkProfile, Profile, ProfiledEnd

OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))
        self.norm = nn.BatchNorm1d(256)
        self.head = nn.Linear(256, classes)

    def forward(self, images):
        hidden = self.stem(images).flatten(2)
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return self.head(self.norm(hidden.flatten(1)))


def net(shape):
    return Net(shape.classes)


def sequence(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, shape.classes))
"""
IMAGES, CLASSES = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("function", ["net", "sequence"])
def test_the_profile_is_that_of_the_command_but_for_times_and_samples(
    function: str, own: str
) -> None:
    model = f"{own}:{function}"
    command = ["profile", model, "--dataset", "digits,size=8", "--micro-batch", "4", "--repeats"]
    assert run_guarded(app, [*command, "2", "--out", "command.json"]) == EXIT_DONE
    made = sys.modules[own]
    module = (
        made.Net(10) if function == "net" else made.sequence(type("Shape", (), {"classes": 10}))
    )
    found = hpc_lpm.profile(
        module, (IMAGES, CLASSES), loss=cross_entropy, name=model, repeats=2, threads=1
    )
    found.write("script.json")
    assert hpc_lpm.Profile.read("script.json") == found
    documents = [json.loads(Path(f"{one}.json").read_text()) for one in ("command", "script")]
    for document in documents:
        del document["link"], document["train_samples"], document["test_samples"]
        for layer in document["layers"]:
            del layer["forward_seconds"], layer["backward_seconds"]
            del layer["weight_gradient_seconds"], layer["split_backward_seconds"]
    assert documents[0] == documents[1]


def test_a_profile_leaves_the_script_as_it_was() -> None:
    class Dicing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * (random.random() + float(np.random.rand()))

    module = nn.Sequential(nn.Flatten(), Dicing(), nn.Dropout(), nn.Linear(64, 10)).eval()
    images = IMAGES.clone().requires_grad_()

    def state() -> list[Any]:
        tensors = [*module.parameters(), images]
        return [
            [(tensor.tolist(), tensor.grad) for tensor in tensors],
            [part.training for part in module.modules()],
            [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()],
            [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()],
        ]

    before = state()
    found = hpc_lpm.profile(module, (images, CLASSES), loss=nn.CrossEntropyLoss(), repeats=1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        again = hpc_lpm.profile(module, (images, CLASSES), loss=cross_entropy, repeats=1)
    assert state() == before
    assert found.model == "Sequential"
    assert found.micro_batch == 4
    assert found.environment["threads"] == torch.get_num_threads()
    assert all(layer.backward_seconds > 0 for layer in again.layers[1:])
    held = [layer.activation_bytes for layer in found.layers]
    assert held == [layer.activation_bytes for layer in again.layers], "autocast is the caller's"


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (IMAGES, {}, r"of type Tensor, .* profile\(model, \(inputs, targets\), loss=loss\)"),
        ((IMAGES, CLASSES[:3]), {}, "inputs of 4 samples and targets of 3"),
        ((IMAGES, CLASSES), {"repeats": 0}, "the number of repeats is 0"),
        ((IMAGES, CLASSES), {"device": "tpu"}, "the device is 'tpu'"),
        ((IMAGES, CLASSES), {"precision": "fp8"}, "^precision is 'fp8'"),
        ((IMAGES, CLASSES), {"memory_format": "x"}, "^memory_format is 'x'"),
        ((IMAGES, CLASSES + 9), {}, r"^the loss cross_entropy raises IndexError: Target 10"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_the_words_of_a_script(
    given: Any, options: dict[str, Any], sentence: str
) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match=sentence):
        hpc_lpm.profile(module, given, loss=cross_entropy, **options)


def profiled(micro_batch: int = 2) -> Profile:
    layers = tuple(
        LayerProfile(
            name=f"block{number}.linear",
            forward_seconds=0.1 + 0.01 * number * micro_batch,
            backward_seconds=0.3,
            output_bytes=1000 * (number % 3 + 1) * micro_batch,
            parameter_bytes=5000,
            activation_bytes=700,
            fingerprint=f"{number:016x}",
            ends=(ProfiledEnd(path=f"block{number}", type="Block"),),
            cut_after=number != 2,
        )
        for number in range(8)
    )
    link = LinkProfile(latency_seconds=1e-4, bandwidth_bytes_per_second=1e6)
    pairs = (Link(latency_seconds=1e-3, bandwidth_bytes_per_second=1e5), link)
    return Profile(
        model="Net",
        micro_batch=micro_batch,
        device="cpu",
        dtype="float32",
        layers=layers,
        link=link,
        links=pairs,
    )


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({"stages": 2}, ""),
        (
            {"stages": 3, "lead": 2, "weights": "live", "micro_batches": 8, "tolerance": 0.1},
            "--lead 2 --weights live --micro-batches 8 --tolerance 0.1",
        ),
        (
            {"stages": 3, "schedule": "1f1b", "optimizer": "adamw"},
            "--schedule 1f1b --optimizer adamw",
        ),
        (
            {"stages": 3, "memory_limit": ["1MB", 900_000, 10**6], "speeds": [1, 0.5, 1]},
            "--memory-limit 1MB,900000,1000000 --speeds 1,0.5,1",
        ),
        ({"cuts": [2, "block5"], "overlap": False}, "--cuts 2,block5 --no-overlap"),
        ({"stages": 3, "cut_only_at": ["block?", "type:Block"]}, "--cut-only-at block?,type:Block"),
        ({"stages": 2, "planner": "uniform", "latency": "5ms"}, "--planner uniform --latency 5ms"),
        ({"stages": 2, "latency": 0.005, "bandwidth": 1e5}, "--latency 0.005 --bandwidth 1e5"),
        (
            {"stages": 3, "optimizer": "muon", "prediction_rule": "second-order", "recipe": "auto"},
            "--optimizer muon --prediction-rule second-order --recipe auto",
        ),
        ({"stages": 3, "optimizer": "adamw"}, "--optimizer adamw"),
        ({"stages": 3, "links": "measured"}, "--links measured"),
        ({"stages": 3, "links": ["1ms:1e5", "0:1e9"]}, "--links 1ms:1e5,0:1e9"),
        (
            {"stages": 4, "node_link": "1ms:1e4", "devices_per_node": 2},
            "--node-link 1ms:1e4 --devices-per-node 2",
        ),
    ],
)
def test_the_plan_is_the_very_one_of_the_command(
    options: dict[str, Any], typed: str, tmp_path: Path
) -> None:
    command = typed.split()
    if "stages" in options:
        command += ["--stages", str(options["stages"])]
    profiled().write(tmp_path / "profile.json")
    written = ["plan", str(tmp_path / "profile.json"), "--out", str(tmp_path / "command.json")]
    assert run_guarded(app, [*written, *command]) == EXIT_DONE
    found = hpc_lpm.plan(hpc_lpm.Profile.read(str(tmp_path / "profile.json")), **options)
    found.write(tmp_path / "script.json")
    assert (tmp_path / "script.json").read_text() == (tmp_path / "command.json").read_text()
    assert hpc_lpm.Plan.read(tmp_path / "script.json") == found
    assert found.options["schedule"] == options.get("schedule", "fbp")


def test_a_search_over_devices_takes_several_profiles_as_the_command_does(tmp_path: Path) -> None:
    profiles = [profiled(2), profiled(4)]
    files = [tmp_path / f"{found.micro_batch}.json" for found in profiles]
    for found, path in zip(profiles, files, strict=True):
        found.write(path)
    command = ["plan", *map(str, files), "--devices", "4", "--global-batch", "32"]
    assert run_guarded(app, [*command, "--out", str(tmp_path / "plan.json")]) == EXIT_DONE
    found = hpc_lpm.plan(profiles, devices=4, global_batch=32)
    assert found == hpc_lpm.Plan.read(tmp_path / "plan.json")


def test_a_search_for_the_time_to_a_target_is_the_commands(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(
        "model_family,optimizer,recipe,stages,micro_batches,lead,weights,first_stage_lag,"
        "steps_ratio,low,high,seeds,source\nNet,muon,none,4,4,1,live,0.75,1.1,1,1.2,3,own\n"
    )
    profiled().write(tmp_path / "profile.json")
    typed = "--devices 4 --global-batch 32 --optimizer muon --objective time-to-target"
    command = ["plan", str(tmp_path / "profile.json"), *typed.split(), "--efficiency", str(own)]
    assert run_guarded(app, [*command, "--out", str(tmp_path / "plan.json")]) == EXIT_DONE
    found = hpc_lpm.plan(
        profiled(),
        devices=4,
        global_batch=32,
        optimizer="muon",
        objective="time-to-target",
        efficiency=own,
    )
    assert found == hpc_lpm.Plan.read(tmp_path / "plan.json")
    assert found.step_worth is not None
    assert found.lag_mean is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "neither stages nor devices is given: give the number of stages, or devices and "),
        ({"stages": 99}, "99 stages"),
        ({"cuts": [3], "stages": 3}, "stages is 3, but cuts 3 makes 2 stages"),
        ({"cuts": ["nothing"]}, "cuts"),
        ({"stages": 2.0}, "^stages is 2.0, accepted are whole numbers"),
        ({"devices": "4", "global_batch": 4}, "^devices is '4', accepted are whole numbers"),
        ({"stages": 2, "memory_limit": 0}, "^memory_limit is 0, accepted is a size above 0"),
        ({"stages": 2, "memory_limit": 4e9}, "^memory_limit is .*: 4000000000.0 is no size"),
        ({"stages": 2, "memory_limit": [None]}, "^memory_limit is .*: None is no size, accepted"),
        ({"cuts": 5}, "^cuts is 5, accepted is a list, such as"),
        ({"cuts": [5.0]}, "^cuts is .*, accepted is a list, such as"),
        ({"stages": 2, "cut_only_at": 3}, "^cut_only_at is 3, accepted is a list, such as"),
        ({"stages": 2, "links": 5}, "^links is 5, accepted is a list, one LATENCY:BANDWIDTH"),
        ({"stages": 2, "links": [(1e-3, 1e5)]}, "^links has .*, accepted is LATENCY:BANDWIDTH"),
        (
            {"stages": 2, "node_link": 5, "devices_per_node": 1},
            "^node_link has 5, accepted is LATENCY:BANDWIDTH",
        ),
        ({"stages": 2, "latency": -1}, "^latency is -1, accepted are seconds from 0"),
        ({"stages": 2, "node_link": "0:1"}, "^devices_per_node is missing: node_link and "),
        ({"stages": 2, "lead": 2, "schedule": "gpipe"}, "^lead is 2, but it means nothing"),
        ({"stages": 2, "optimizer": "lbfgs"}, "plan option optimizer"),
        ({"stages": 2, "efficiency": "none.csv"}, "^efficiency file none.csv does not exist"),
        ({"stages": 2, "objective": "time-to-target"}, "^objective is time-to-target with stages"),
        (
            {"devices": 2, "global_batch": 4, "objective": "speed"},
            "^objective is 'speed', accepted",
        ),
    ],
)
def test_what_cannot_be_planned_is_said_in_the_words_of_a_script(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as raised:
        hpc_lpm.plan(profiled(), **options)
    assert "--" not in str(raised.value)


def test_what_is_no_profile_is_refused() -> None:
    with pytest.raises(InputError, match=r"of type PosixPath, .* hpc_lpm.Profile.read"):
        hpc_lpm.plan([Path("profile.json")], stages=2)  # type: ignore[list-item]


def test_commands_in_a_sentence_stay_commands() -> None:
    sentence = "--memory-limit is 0: run `hpc-lpm plan --stages 2`, or leave --memory-limit out."
    assert in_keywords(sentence) == (
        "memory_limit is 0: run `hpc-lpm plan --stages 2`, or leave memory_limit out."
    )


def model_and_module(width: int) -> tuple[LayeredModel, nn.Sequential]:
    module = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
    return model_of(module, loss=cross_entropy), module


def test_a_plan_for_another_model_or_number_of_ranks_is_told_with_the_functions() -> None:
    model, module = model_and_module(4)
    inputs = torch.randn(2, 3), torch.tensor([0, 1])
    made = hpc_lpm.plan(hpc_lpm.profile(module, inputs, loss=cross_entropy, repeats=1), stages=2)
    check_layer_names(made, None, model)
    check_ranks(made, None, 4)
    longer = model_of(nn.Sequential(*module, nn.ReLU()), loss=cross_entropy)
    again = r"make it anew with hpc_lpm.profile and hpc_lpm.plan\(profile, stages=2\)\.$"
    with pytest.raises(InputError, match=f"^the plan was made for another model .*{again}"):
        check_layer_names(made, None, longer)
    other, _ = model_and_module(5)
    sentence = other_layer(made, None, {0: other.build_layer(0, 0)}, other)
    assert sentence is not None
    assert "its layer 0 (0) has other parameters" in sentence
    assert other_layer(made, None, {0: model.build_layer(0, 0)}, model) is None
    with pytest.raises(InputError, match=r"the plan has 2 stages but 3 ranks .*stages=3\)\.$"):
        check_ranks(made, None, 3)


def test_an_option_that_means_nothing_is_refused_in_a_script_but_not_where_the_plan_has_it() -> (
    None
):
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))
    micro_batch = torch.randn(4, 8), CLASSES
    made = hpc_lpm.plan(
        hpc_lpm.profile(net, micro_batch, loss=cross_entropy, repeats=1),
        stages=2,
        lead=2,
        weights="replay",
    )

    def settings(**options: Any) -> dict[str, Any]:
        job, model = start_job(parallel=False), model_of(net, (micro_batch[0],), loss=cross_entropy)
        strategy = strategy_named(options.pop("strategy"))
        return _settings_of(job, model, made, strategy, options).model_dump()

    planned = settings(strategy="fbp")
    assert (planned["lead"], planned["weights"]) == (2, "replay")
    for name in ("gpipe", "1f1b", "zb-v"):
        found = settings(strategy=name, weights="live")
        assert (found["lead"], found["weights"]) == (2 if name == "1f1b" else 1, "live")
    with pytest.raises(InputError, match=r"lead is 2, but it means nothing under .*gpipe"):
        settings(strategy="gpipe", lead=2)
