"""Plans of other models and plans changed by hand are refused, before anything runs."""

import json
from pathlib import Path

import pytest
import torch
from test_plan_command import call, plan_path, profile_path  # noqa: F401  fixtures
from torch import nn

from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.fingerprint import layer_fingerprint
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.model_checks import check_layer_names, other_layer
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import Profile
from hpc_lpm.profiling.layers import profile_model

WHERE = Path("plan.json")


def changed(path, change, *, sealed=False):
    """Change the document of a plan as a text editor would, or as if it had no seal."""
    document = json.loads(path.read_text())
    change(document)
    if sealed:
        del document["content_sha256"]
    path.write_text(json.dumps(document, indent=4))


def moved_cut(document):
    document["stages"][0]["stop"] = document["stages"][1]["start"] = 4


def test_a_plan_is_read_whatever_the_spaces_and_the_order_of_its_keys(plan_path):  # noqa: F811
    before = Plan.read(plan_path)
    document = json.loads(plan_path.read_text())
    plan_path.write_text(json.dumps(dict(sorted(document.items(), reverse=True))))
    assert Plan.read(plan_path) == before


@pytest.mark.parametrize(
    "change",
    [
        moved_cut,
        lambda document: document.update(period_seconds=0.001),
        lambda document: document["options"].update(lead=2),
        lambda document: document["layers"][0].update(fingerprint="0" * 16),
    ],
)
def test_a_plan_that_was_changed_by_hand_is_refused(plan_path, change):  # noqa: F811
    changed(plan_path, change)
    with pytest.raises(InputError, match=r"changed after it had been made.* PROFILE --cuts [34]`"):
        Plan.read(plan_path)


def test_simulation_refuses_prices_that_do_not_follow_from_the_profile(
    capsys,
    profile_path,  # noqa: F811
    plan_path,  # noqa: F811
):
    changed(plan_path, moved_cut, sealed=True)
    code, out, err = call(capsys, "simulate", profile_path, "--plan", plan_path)
    assert (code, out, err.count("\n")) == (EXIT_BAD_INPUT, "", 1)
    assert "compute_seconds in stage 0 of 0.009 where 0.012 follows from its profile" in err
    assert f"`hpc-lpm plan {profile_path} --cuts 4 --out {plan_path}`" in err


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        (
            ("--schedule", "interleaved-1f1b", "--chunks", 3, "--micro-batches", 8),
            "--schedule interleaved-1f1b --micro-batches 8 --chunks 3",
        ),
        (("--schedule", "zb-v"), "--schedule zb-v"),
        (
            ("--lead", 2, "--weights", "stash", "--optimizer", "adam"),
            "--lead 2 --weights stash --optimizer adam",
        ),
    ],
)
def test_the_command_for_a_changed_plan_names_the_schedule_and_the_chunks_that_it_is_for(
    capsys,
    profile_path,  # noqa: F811
    tmp_path,
    options,
    typed,
):
    path = tmp_path / "made.json"
    made = call(capsys, "plan", profile_path, "--stages", 2, *options, "--out", path)
    assert made[0] == EXIT_DONE
    changed(path, lambda document: document["stages"][0].update(memory_bytes=1), sealed=True)
    cuts = ",".join(map(str, Plan.read(path).cuts[1:-1]))
    _, _, err = call(capsys, "simulate", profile_path, "--plan", path)
    assert f"`hpc-lpm plan {profile_path} --cuts {cuts} {typed} --out {path}`" in err


@pytest.mark.parametrize(
    "options",
    [
        ("--stages", 2),
        ("--stages", 3, "--latency", 0.5, "--bandwidth", 7),
        ("--stages", 3, "--no-overlap", "--speeds", "1,0.5,2"),
        ("--cuts", "1,4", "--schedule", "gpipe", "--micro-batches", 6),
        ("--stages", 2, "--cut-only-at", "conv0,conv3", "--lead", 2, "--optimizer", "adam"),
        ("--devices", 4, "--global-batch", 64),
    ],
)
def test_whatever_plan_is_made_its_prices_follow(capsys, profile_path, tmp_path, options):  # noqa: F811
    path = tmp_path / "made.json"
    assert call(capsys, "plan", profile_path, *options, "--out", path)[0] == EXIT_DONE
    code, _, err = call(capsys, "simulate", profile_path, "--plan", path)
    assert code == EXIT_DONE, err
    changed(path, lambda document: document.update(period_seconds=9e9), sealed=True)
    code, _, err = call(capsys, "simulate", profile_path, "--plan", path)
    assert code == EXIT_BAD_INPUT
    assert "period_seconds of 9e+09" in err


def test_a_profile_that_was_made_anew_may_have_other_times(
    capsys,
    profile_path,  # noqa: F811
    plan_path,  # noqa: F811
):
    profile = Profile.read(profile_path)
    slower = [layer.model_copy(update={"forward_seconds": 0.1}) for layer in profile.layers]
    profile.model_copy(update={"layers": tuple(slower)}).write(profile_path)
    assert call(capsys, "simulate", profile_path, "--plan", plan_path)[0] == EXIT_DONE


def chain(*builders, names="abcdef"):
    layers = tuple(Layer(name, build) for name, build in zip(names, builders, strict=False))
    return LayeredModel("chain", layers, cross_entropy, count_correct)


def profiled(model):
    layers = profile_model(model, torch.randn(2, 4), torch.arange(2), repeats=1)
    link = {"latency_seconds": 0, "bandwidth_bytes_per_second": 1e9}
    return Profile(
        model="chain", micro_batch=2, device="cpu", dtype="float32", layers=layers, link=link
    )


SMALL = chain(lambda: nn.Linear(4, 6), nn.ReLU, lambda: nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (chain(*(nn.ReLU,) * 3, names="axc"), "its layer 1 is b where the model has x"),
        (chain(*(nn.ReLU,) * 2), "it covers 3 layers and the model has 2"),
    ],
)
def test_the_first_layer_of_another_name_is_named(other, sentence):
    plan = make_plan(profiled(SMALL), "0" * 64, 2)
    check_layer_names(plan, WHERE, SMALL, "make it")
    with pytest.raises(InputError, match=f"plan.json .*{sentence}: make it anew with `make it`"):
        check_layer_names(plan, WHERE, other, "make it")


@pytest.mark.parametrize(
    "wider",
    [
        lambda: nn.Linear(6, 5),
        lambda: nn.Linear(6, 4, bias=False),
        lambda: nn.Linear(6, 4).double(),
        lambda: nn.BatchNorm1d(4),
    ],
)
def test_the_first_layer_of_other_parameters_is_named(wider):
    plan = make_plan(profiled(SMALL), "0" * 64, 2)
    other = chain(lambda: nn.Linear(4, 6), nn.ReLU, wider)
    check_layer_names(plan, WHERE, other, "")
    assert other_layer(plan, WHERE, {1: nn.ReLU()}, other, "") is None
    sentence = other_layer(plan, WHERE, {1: nn.ReLU(), 2: wider()}, other, "make it")
    assert "its layer 2 (c) has other parameters or buffers than the model's" in sentence
    assert sentence.endswith("make it anew with `make it`.")


def test_simulation_names_the_layer_in_which_plan_and_profile_differ(capsys, tmp_path):
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    profiled(SMALL).write(mine)
    profiled(chain(lambda: nn.Linear(4, 7), nn.ReLU, lambda: nn.Linear(7, 4))).write(other)
    plan = tmp_path / "plan.json"
    call(capsys, "plan", mine, "--stages", 2, "--out", plan)
    assert call(capsys, "simulate", mine, "--plan", plan)[0] == EXIT_DONE
    code, _, err = call(capsys, "simulate", other, "--plan", plan)
    assert code == EXIT_BAD_INPUT
    assert "its layer 0 (a) has other parameters or buffers than the model's" in err
    assert "hpc-lpm plan PROFILE --stages 2" in err


def test_emulated_layers_pass_for_those_that_they_emulate(tmp_path):
    profile = profiled(SMALL)
    profile.write(tmp_path / "profile.json")
    plan = make_plan(profile, "0" * 64, 2)
    shape = DataShape("image", (1, 2, 2), 4)
    emulated = create_model(f"replay:{tmp_path / 'profile.json'}", shape)
    check_layer_names(plan, WHERE, emulated, "")
    layers = {index: emulated.build_layer(index, 0) for index in range(3)}
    assert other_layer(plan, WHERE, layers, emulated, "") is None
    assert [layer.ends[0].type for layer in emulated.layers] == ["Linear", "ReLU", "Linear"]


def test_a_fingerprint_depends_on_names_shapes_and_types_alone():
    same = layer_fingerprint("a", nn.Linear(3, 2))
    assert layer_fingerprint("a", nn.Linear(3, 2)) == same
    assert layer_fingerprint("a", nn.LazyLinear(2)) != same
    different = [
        layer_fingerprint("b", nn.Linear(3, 2)),
        layer_fingerprint("a", nn.Linear(2, 3)),
        layer_fingerprint("a", nn.Linear(3, 2).half()),
        layer_fingerprint("a", nn.Sequential(nn.Linear(3, 2))),
    ]
    assert len({same, *different}) == 5


def test_a_plan_from_an_earlier_release_is_checked_by_its_layers_number_alone(plan_path):  # noqa: F811
    document = json.loads(plan_path.read_text())
    for added in ("layers", "link", "content_sha256"):
        del document[added]
    plan_path.write_text(json.dumps(document))
    plan = Plan.read(plan_path)
    check_layer_names(plan, WHERE, chain(*(nn.ReLU,) * 6), "")
    assert other_layer(plan, WHERE, {0: nn.Linear(9, 9)}, chain(*(nn.ReLU,) * 6), "") is None
