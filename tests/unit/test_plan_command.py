"""`plan`, `planners` and `simulate` as a user calls them."""

import hashlib
import json

import pytest

from hpc_lpm.cli import plan, planners, simulate  # noqa: F401  registers them
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


@pytest.fixture
def profile_path(tmp_path):
    layers = tuple(
        LayerProfile(
            name=f"conv{number}",
            forward_seconds=0.001,
            backward_seconds=0.002,
            output_bytes=1000 + number,
            parameter_bytes=500,
            activation_bytes=300,
        )
        for number in range(6)
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9)
    path = tmp_path / "profile.json"
    Profile(
        model="toy", micro_batch=8, device="cpu", dtype="float32", layers=layers, link=link
    ).write(path)
    return path


def call(capsys, *arguments):
    """Return exit code, stdout and stderr of the command line."""
    code = run_guarded(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def plan_path(profile_path, tmp_path, capsys):
    path = tmp_path / "plan.json"
    options = ("--stages", 2, "--weights", "live", "--out", path)
    assert call(capsys, "plan", profile_path, *options)[0] == EXIT_DONE
    return path


def test_plan_writes_a_file_that_names_its_profile(plan_path, profile_path):
    written = Plan.read(plan_path)
    assert written.cuts == (0, 3, 6)
    assert written.model == "toy"
    assert written.profile_sha256 == hashlib.sha256(profile_path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("typed", "planned"),
    [
        ("AdamW", "adamw"),
        ("SGD", "sgd"),
        ("Momentum", "momentum"),
        ("MUON", "muon"),
        ("nadam", "other"),
        ("RMSprop", "other"),
        ("my_optimizers:Mine", "other"),
        ("other", "other"),
    ],
)
def test_plan_takes_every_optimizer_that_training_takes(capsys, profile_path, typed, planned):
    def memory_of(name):
        options = ("--stages", 2, "--weights", "live", "--json", "--optimizer", name)
        code, out, err = call(capsys, "plan", profile_path, *options)
        assert code == EXIT_DONE, err
        return json.loads(out)

    found = memory_of(typed)
    assert found["options"]["optimizer"] == planned
    assert found["stages"] == memory_of(planned)["stages"]


def test_a_recipe_predicts_with_an_optimizer_in_capitals_as_with_one_in_small_letters(
    capsys, profile_path
):
    def plan_with(name, *more):
        options = ("--stages", 4, "--recipe", "auto", "--json", "--optimizer", name, *more)
        code, out, err = call(capsys, "plan", profile_path, *options)
        assert code == EXIT_DONE, err
        return json.loads(out)

    assert plan_with("Momentum") == plan_with("momentum")
    assert plan_with("Momentum")["options"]["prediction_rule"] == "spectrain"
    assert plan_with("nadam")["options"]["prediction_rule"] is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "RMSpro",
            "plan option optimizer 'RMSpro' is unknown, did you mean 'RMSprop'?: accepted are",
        ),
        ("LBFGS", "plan option optimizer 'LBFGS' cannot be used: it runs forward and backward"),
    ],
)
def test_plan_refuses_an_optimizer_that_training_refuses(capsys, profile_path, typed, said):
    options = ("--stages", 2, "--optimizer", typed)
    code, _, err = call(capsys, "plan", profile_path, *options)
    assert code == EXIT_BAD_INPUT
    assert said in err


def test_plan_prints_json_alone(capsys, profile_path):
    arguments = ("--stages", 3, "--weights", "live", "--speeds", "1,1,0.5", "--no-overlap")
    code, out, _ = call(
        capsys, "plan", profile_path, *arguments, "--memory-limit", "9000,9000,9000", "--json"
    )
    document = json.loads(out)
    assert code == EXIT_DONE
    assert [stage["stop"] for stage in document["stages"]] == [2, 5, 6]
    assert document["options"]["speeds"] == [1.0, 1.0, 0.5]
    assert document["options"]["overlap"] is False
    assert document["options"]["memory_limit"] == [9000, 9000, 9000]
    assert document["explanation"]["bottleneck"] == "compute and transfers of stage 1"


def test_plan_shows_stages_bottleneck_and_speedup(capsys, profile_path):
    code, out, _ = call(capsys, "plan", profile_path, "--stages", 2, "--weights", "live")
    assert code == EXIT_DONE
    for text in ("conv0 - conv2", "conv3 - conv5", "9.000", "#" * 10):
        assert text in out
    assert "set by the compute of stage 0" in out
    assert "2.00x over one device, at most 2.00x by the devices together" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--stages", 7), "ask for at most 6 stages"),
        (("--stages", 2, "--planner", "lmp"), "did you mean 'lpm'"),
        (("--stages", 2, "--speeds", "1,x"), "--speeds is '1,x'"),
        (("--stages", 2, "--memory-limit", "1G"), "--memory-limit is '1G'"),
        (("--stages", 2, "--memory-limit", "0"), "--memory-limit is '0'"),
        (("--stages", 2, "--memory-limit", "100"), "no plan of 2 stages"),
        (("--stages", 2, "--optimizer", "lion"), "optimizer"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(capsys, profile_path, arguments, sentence):
    code, out, err = call(capsys, "plan", profile_path, *arguments)
    assert code == EXIT_BAD_INPUT
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_planners_are_listed(capsys):
    code, out, _ = call(capsys, "planners", "--json")
    assert code == EXIT_DONE
    assert {"lpm", "uniform", "parameters"} <= {entry["name"] for entry in json.loads(out)}
    assert "uniform" in call(capsys, "planners")[1]


def test_simulation_of_a_balanced_plan_has_no_idle_stage(capsys, profile_path, plan_path):
    code, out, _ = call(capsys, "simulate", profile_path, "--plan", plan_path, "--json")
    document = json.loads(out)
    assert code == EXIT_DONE
    assert document["period_seconds"] == pytest.approx(0.009, rel=1e-3)
    assert document["samples_per_second"] == pytest.approx(8 / 0.009, rel=1e-3)
    assert max(document["idle_share"]) < 0.001
    assert document["peak_in_flight"] == [2, 1]
    # 3 parameters (momentum) and two or one micro-batch's activations.
    assert document["memory_bytes"] == [3 * 1500 + 2 * 900, 3 * 1500 + 900]
    assert document["timeline"][1][0]["instruction"] == "F0"
    assert document["timeline"][1][0]["start_seconds"] == pytest.approx(0.003, rel=1e-3)


def test_simulation_options_overrule_those_of_the_plan(capsys, profile_path, plan_path):
    def simulated(*arguments):
        _, out, _ = call(
            capsys, "simulate", profile_path, "--plan", plan_path, "--json", *arguments
        )
        return json.loads(out)

    flushing = simulated("--strategy", "1f1b", "--micro-batches", 2)
    assert flushing["period_seconds"] == pytest.approx(0.009 * 3 / 2, rel=1e-3)
    # With lead 4 and one micro-batch a step every forward of stage 0 lags and is repeated.
    replayed = simulated("--weights", "replay", "--lead", 4, "--micro-batches", 1)
    assert replayed["period_seconds"] == pytest.approx(0.012, rel=1e-3)
    stashed = simulated("--weights", "stash", "--lead", 4, "--micro-batches", 1)
    assert stashed["period_seconds"] == pytest.approx(0.009, rel=1e-3)
    assert stashed["memory_bytes"][0] == (3 + 4) * 1500 + 5 * 900
    # Four micro-batches ahead at three a step are up to two versions behind.
    stashed = simulated("--weights", "stash", "--lead", 4, "--micro-batches", 3)
    assert stashed["memory_bytes"][0] == (3 + 2) * 1500 + 5 * 900


def test_simulation_uses_the_speeds_of_the_plan(capsys, profile_path, tmp_path):
    path = tmp_path / "plan.json"
    arguments = ("--stages", 2, "--weights", "live", "--planner", "uniform", "--speeds", "1,0.5")
    call(capsys, "plan", profile_path, *arguments, "--out", path)
    _, out, _ = call(capsys, "simulate", profile_path, "--plan", path, "--json")
    assert json.loads(out)["period_seconds"] == pytest.approx(0.018, rel=1e-3)


def test_simulation_with_jitter_is_slower_and_repeats_with_its_seed(
    capsys, profile_path, plan_path
):
    def simulated(*arguments):
        asked = ("--json", "--steps", 60, *arguments)
        _, out, _ = call(capsys, "simulate", profile_path, "--plan", plan_path, *asked)
        return json.loads(out)

    calm = simulated()
    varied = [simulated("--jitter", 0.3, "--seed", seed) for seed in (0, 1, 0)]
    assert all(each["period_seconds"] > calm["period_seconds"] for each in varied)
    assert varied[0] == varied[2] != varied[1]
    # The timeline is that of the simulation.
    assert varied[0]["makespan_seconds"] == max(
        line[-1]["end_seconds"] for line in varied[0]["timeline"]
    )
    assert simulated("--stalls", "0.2:5")["period_seconds"] > 1.5 * calm["period_seconds"]


def test_a_slow_stage_and_a_slow_link_bound_the_period(capsys, profile_path, plan_path):
    def period(*arguments):
        asked = ("--json", *arguments)
        _, out, _ = call(capsys, "simulate", profile_path, "--plan", plan_path, *asked)
        return json.loads(out)["period_seconds"]

    assert period("--slow-stage", "1:3") == pytest.approx(0.027, rel=1e-3)
    assert period("--slow-stage", "0:2,1:3") == pytest.approx(0.027, rel=1e-3)
    assert period("--slow-link", "0:1000000") > 0.1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--jitter", "-1"), "--jitter is -1.0, accepted is 0 to 2.0"),
        (("--seed", "-1"), "--seed is -1, at least 0 is accepted"),
        (("--stalls", "2:5"), "--stalls has '2:5', accepted is SHARE:FACTOR"),
        (("--stalls", "0:5"), "SHARE:FACTOR with a share of the passes above 0 and up to 1, and a"),
        (("--stalls", "0.1:5,0.2:5"), "accepted is one SHARE:FACTOR"),
        (("--slow-stage", "2:5"), "--slow-stage has '2:5', accepted is STAGE:FACTOR"),
        (("--slow-stage", "1:5,1:6"), "--slow-stage has '1:6'"),
        (("--slow-stage", "0.5:2"), "--slow-stage has '0.5:2'"),
        (("--slow-stage", "1"), "--slow-stage has '1'"),
        (("--slow-link", "1:2"), "--slow-link has '1:2', accepted is BOUNDARY:FACTOR"),
        (("--slow-link", "0:nan"), "--slow-link has '0:nan'"),
        (("--slow-link", "0:1e308"), "--slow-link has '0:1e308', accepted is BOUNDARY"),
        (("--slow-stage", "0:1e300"), "--slow-stage has '0:1e300'"),
        (("--stalls", "0.1:4e38"), "--stalls has '0.1:4e38'"),
    ],
)
def test_disturbances_that_make_no_sense_are_refused(
    capsys, profile_path, plan_path, arguments, sentence
):
    code, out, err = call(capsys, "simulate", profile_path, "--plan", plan_path, *arguments)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_long_simulations_have_no_timeline_and_say_so(capsys, profile_path, plan_path):
    asked = ("simulate", profile_path, "--plan", plan_path, "--steps", 20_000)
    assert json.loads(call(capsys, *asked, "--json")[1])["timeline"] is None
    assert "The timeline is left out" in call(capsys, *asked)[1]


def test_simulation_draws_the_timeline(capsys, profile_path, plan_path):
    code, out, _ = call(capsys, "simulate", profile_path, "--plan", plan_path)
    assert code == EXIT_DONE
    rows = [line.split() for line in out.splitlines() if line.startswith("stage ")]
    assert [row[1] for row in rows] == ["0", "1"]
    assert rows[0][2].startswith("000")
    assert rows[1][2].startswith("...")


def test_simulation_refuses_a_plan_of_another_model(capsys, profile_path, plan_path, tmp_path):
    other = tmp_path / "other.json"
    Profile.read(profile_path).model_copy(update={"model": "other"}).write(other)
    code, _, err = call(capsys, "simulate", other, "--plan", plan_path)
    assert code == EXIT_BAD_INPUT
    assert "make the plan from this profile" in err


def test_simulation_of_an_unknown_strategy_is_bad_input(capsys, profile_path, plan_path):
    arguments = ("simulate", profile_path, "--plan", plan_path, "--strategy", "fpb")
    code, _, err = call(capsys, *arguments)
    assert code == EXIT_BAD_INPUT
    assert "did you mean 'fbp'" in err
