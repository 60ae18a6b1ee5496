"""`plan --schedule`, and plans that are used for another schedule, as a user calls them."""

import json
import shlex

import pytest

from hpc_lpm.cli import plan, planners, simulate  # noqa: F401  registers them
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.repricing import plan_for
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE

LAYERS, PARAMETERS, ACTIVATIONS = 4, 1000, 7


@pytest.fixture
def profile_path(tmp_path):
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=0.001,
            backward_seconds=0.002,
            output_bytes=100,
            parameter_bytes=PARAMETERS,
            activation_bytes=ACTIVATIONS,
        )
        for number in range(LAYERS)
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9)
    path = tmp_path / "profile.json"
    Profile(
        model="toy", micro_batch=2, device="cpu", dtype="float32", layers=layers, link=link
    ).write(path)
    return path


def call(capsys, *arguments):
    """Return exit code, stdout and stderr of the command line."""
    code = run_guarded(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def planned(capsys, profile_path, tmp_path):
    """Return a function that makes a plan of two stages and returns its path."""

    def make(*arguments):
        path = tmp_path / "plan.json"
        command = ("plan", profile_path, "--stages", 2, "--out", path, *arguments)
        assert call(capsys, *command)[0] == EXIT_DONE
        return path

    return make


def held(in_flight, samples=2):
    """Return the bytes of a stage of two layers with momentum."""
    return 3 * 2 * PARAMETERS + in_flight * 2 * ACTIVATIONS * samples // 2


def test_a_plan_is_priced_for_its_schedule_and_records_it(planned):
    path = planned("--schedule", "gpipe", "--micro-batches", 8)
    written = Plan.read(path)
    assert written.options["schedule"] == "gpipe"
    assert [stage.memory_bytes for stage in written.stages] == [held(8), held(8)]
    # Nothing lags, so nothing is replayed.
    assert [stage.compute_seconds for stage in written.stages] == pytest.approx([0.006, 0.006])
    default = Plan.read(planned("--micro-batches", 8))
    assert default.options["schedule"] == "fbp"
    assert [stage.memory_bytes for stage in default.stages] == [held(2), held(1)]


def test_options_that_ask_for_nothing_are_accepted_of_any_schedule(planned):
    written = Plan.read(planned("--schedule", "gpipe", "--lead", 1, "--weights", "live"))
    assert [stage.memory_bytes for stage in written.stages] == [held(4), held(4)]


def test_the_table_names_the_schedule_and_what_the_period_leaves_out(capsys, profile_path):
    code, out, _ = call(capsys, "plan", profile_path, "--stages", 2, "--schedule", "gpipe")
    words = " ".join(out.split())
    assert code == EXIT_DONE
    assert "schedule gpipe, 4 micro-batches per step lag none: every backward sees" in words
    assert "not covered schedule gpipe empties the pipeline before every update" in words
    words = " ".join(call(capsys, "plan", profile_path, "--stages", 2)[1].split())
    assert (
        "schedule fbp, 4 micro-batches per step, lead 1, weights live lag 0.12 updates on" in words
    )
    assert "not covered" not in words


@pytest.mark.parametrize("pareto", [(), ("--pareto",)])
def test_json_says_what_the_period_leaves_out(capsys, profile_path, pareto):
    command = ("plan", profile_path, "--stages", 2, "--schedule", "naive", "--json", *pareto)
    document = json.loads(call(capsys, *command)[1])
    sentences = (document if pareto else document["explanation"])["not_covered"]
    assert len(sentences) == 1
    assert "hpc-lpm simulate" in sentences[0]
    assert document["options"]["schedule"] == "naive"


def test_a_front_is_that_of_the_schedule(capsys, profile_path):
    arguments = ("plan", profile_path, "--stages", 2, "--micro-batches", 8, "--pareto", "--json")
    front = json.loads(call(capsys, *arguments, "--schedule", "gpipe")[1])
    assert front["points"][front["chosen"]]["memory_bytes"] == held(8)
    code, out, _ = call(capsys, *arguments[:-1], "--schedule", "gpipe")
    assert code == EXIT_DONE
    assert "Not covered: schedule gpipe" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--schedule", "gpip"), "did you mean 'gpipe'"),
        (("--schedule", "gpipe", "--lead", 2), "--lead is 2, but it means nothing under"),
        (("--schedule", "gpipe", "--weights", "stash"), "--weights is stash, but it means nothing"),
        (("--schedule", "1f1b", "--weights", "replay"), "--weights is replay, but it means"),
        (("--schedule", "gpipe", "--memory-limit", held(3)), "no plan of 2 stages"),
        (("--schedule", "no_such_module:Toy"), "module 'no_such_module' of schedule"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(capsys, profile_path, arguments, sentence):
    code, out, err = call(capsys, "plan", profile_path, "--stages", 2, *arguments)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_search_over_devices_refuses_a_schedule_whose_steps_it_does_not_know(
    capsys, profile_path
):
    search = ("plan", profile_path, "--devices", 4, "--global-batch", 16, "--schedule", "1f1b")
    code, _, err = call(capsys, *search)
    assert code == EXIT_BAD_INPUT
    assert "--schedule is 1f1b, but --devices compares the times of steps" in err
    assert "for fbp alone" in err


def test_a_simulation_takes_the_schedule_of_the_plan(capsys, profile_path, planned):
    path = planned("--schedule", "gpipe", "--micro-batches", 8)
    document = json.loads(call(capsys, "simulate", profile_path, "--plan", path, "--json")[1])
    assert document["strategy"] == "gpipe"
    assert document["notice"] is None
    assert document["peak_in_flight"] == [8, 8]
    assert document["memory_bytes"] == [held(8), held(8)]


def test_a_simulation_of_another_schedule_prices_the_plan_anew_and_says_so(
    capsys, profile_path, planned
):
    path = planned("--micro-batches", 8, "--memory-limit", held(8))
    command = ("simulate", profile_path, "--plan", path, "--strategy", "gpipe")
    document = json.loads(call(capsys, *command, "--json")[1])
    assert document["memory_bytes"] == [held(8), held(8)]
    notice = (
        f"plan {path} was made for schedule fbp, and is used for schedule gpipe: priced anew, its "
        f"fullest stage, 0, holds {held(8):,} bytes."
    )
    assert document["notice"] == notice
    assert notice[1:] in call(capsys, *command)[1].replace("\n", "")


def test_a_memory_limit_that_another_schedule_exceeds_is_refused(capsys, profile_path, planned):
    path = planned("--micro-batches", 8, "--memory-limit", held(3))
    command = ("simulate", profile_path, "--plan", path, "--strategy")
    assert call(capsys, *command, "1f1b")[0] == EXIT_DONE
    code, out, err = call(capsys, *command, "gpipe")
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert f"needs {held(8):,} bytes in stage 0 for schedule gpipe" in err
    assert f"memory limit of {held(3):,} bytes" in err
    assert err.count("\n") == 1


def test_a_simulation_refuses_options_that_mean_nothing(capsys, profile_path, planned):
    path = planned("--schedule", "gpipe")
    code, _, err = call(capsys, "simulate", profile_path, "--plan", path, "--lead", 2)
    assert code == EXIT_BAD_INPUT
    assert "--lead is 2, but it means nothing under schedule 'gpipe'" in err


def test_a_plan_used_as_it_was_made_for_needs_no_notice(planned):
    path = planned("--lead", 2)
    written = Plan.read(path)
    use = plan_for(written, path, schedule="fbp", lead=2, weights="live", micro_batches=4)
    assert use.notice is None
    assert use.memory_bytes == tuple(stage.memory_bytes for stage in written.stages)
    # A schedule that takes neither lead nor weights does not differ by them.
    path = planned("--schedule", "gpipe")
    assert plan_for(Plan.read(path), path, schedule="gpipe", lead=3, weights="live").notice is None


def test_a_plan_prices_itself_anew_without_the_profile(planned):
    path = planned()
    use = plan_for(
        Plan.read(path), path, schedule="gpipe", micro_batches=6, optimizer="sgd", micro_batch=3
    )
    two_copies = 2 * 2 * PARAMETERS + 6 * 2 * ACTIVATIONS * 3 // 2
    assert use.memory_bytes == (two_copies, two_copies)
    assert use.notice == (
        f"plan {path} was made for schedule fbp, 4 micro-batches per step, optimizer momentum and "
        "micro-batches of 2 samples, and is used for schedule gpipe, 6 micro-batches per step, "
        f"optimizer sgd and micro-batches of 3 samples: priced anew, its fullest stage, 0, holds "
        f"{two_copies:,} bytes."
    )


@pytest.mark.parametrize("limit", [(), ("--memory-limit", 10**6)])
def test_a_plan_of_an_earlier_release_is_read_and_says_what_it_cannot_tell(
    planned, profile_path, limit
):
    path = planned(*limit)
    document = json.loads(path.read_text())
    del document["micro_batch"], document["options"]["schedule"]
    del document["link"], document["layers"], document["content_sha256"]
    for stage in document["stages"]:
        del stage["parameter_bytes"], stage["activation_bytes"]
    path.write_text(json.dumps(document))
    old = Plan.read(path)
    assert plan_for(old, path, schedule="fbp").notice is None
    use = plan_for(old, path, schedule="gpipe")
    assert use.memory_bytes is None
    assert "records too little to be priced anew" in use.notice
    assert ("memory limit is not checked" in use.notice) == bool(limit)
    # The profile knows what the plan does not.
    profiled = plan_for(old, path, profile=Profile.read(profile_path), schedule="gpipe")
    assert profiled.memory_bytes == (held(4), held(4))


TOYS = '''
from hpc_lpm.planning.planners.registry import Planner
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.ordering import forwards_ahead


class Eager(Schedule):
    """Two forwards ahead a stage, without a flush."""

    description = "twice as far ahead"
    flushes = False
    alternates = True

    def ahead(self, stage, stages, micro_batches_per_step, lead):
        return 2 * (stages - 1 - stage)


class Late(Eager):
    """Begins with all the forwards that it may hold."""

    alternates = False


class Boastful(Eager):
    """Says that it holds fewer micro-batches than it does."""

    def in_flight(self, stage, stages, micro_batches_per_step, lead):
        return 1


class Stale(Eager):
    """Says that its weights never lag."""

    def version_delay(self, stage, stages, micro_batches_per_step, lead=1, *, replicas=1):
        return 0


class Crossed(Eager):
    """Says that it alternates, but empties the pipeline in the middle."""

    def compute(self, stage, stages, micro_batches_per_step, total_micro_batches, lead):
        for first in range(0, total_micro_batches, micro_batches_per_step):
            count = min(micro_batches_per_step, total_micro_batches - first)
            ahead = min(self.ahead(stage, stages, micro_batches_per_step, lead), count)
            yield from forwards_ahead(first, count, ahead, micro_batches_per_step)

    flushes = True


class Hasty(Eager):
    """Runs further ahead in short runs than in long ones."""

    alternates = False

    def ahead(self, stage, stages, micro_batches_per_step, lead):
        return 3 * (stages - 1 - stage)

    def version_delay(self, stage, stages, micro_batches_per_step, lead=1, *, replicas=1):
        return 2 * (stages - 1 - stage) + (replicas > 1)

    def compute(self, stage, stages, micro_batches_per_step, total_micro_batches, lead):
        long = total_micro_batches > 3 * micro_batches_per_step
        ahead = (2 if long else 3) * (stages - 1 - stage)
        yield from forwards_ahead(0, total_micro_batches, ahead, micro_batches_per_step)


class Unfinished(Schedule):
    """Does not say how far it runs ahead."""


eager = Eager()


def first_alone(model):
    """Give the first stage one layer, and the others one each but for the last."""
    return (*range(model.stages), model.layers)


named = Planner("whatever", "as first_alone", first_alone)


def wrong(model):
    return (0, model.layers)
'''


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Put a file of a user's own into the current directory; return the name of its module."""
    name = f"toys_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(TOYS)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("what", ["Eager", "eager"])
def test_a_schedule_of_ones_own_is_planned_and_simulated(capsys, profile_path, planned, toys, what):
    path = planned("--schedule", f"{toys}:{what}", "--weights", "live")
    written = Plan.read(path)
    assert written.options["schedule"] == f"{toys}:{what}"
    assert [stage.memory_bytes for stage in written.stages] == [held(3), held(1)]
    document = json.loads(call(capsys, "simulate", profile_path, "--plan", path, "--json")[1])
    assert document["peak_in_flight"] == [3, 1]
    assert document["memory_bytes"] == [held(3), held(1)]
    assert document["period_seconds"] == pytest.approx(0.006, rel=1e-3)


def test_code_that_a_plan_alone_names_is_not_run(
    capsys, profile_path, planned, tmp_path, monkeypatch
):
    path = planned()
    document = json.loads(path.read_text())
    document["options"]["schedule"] = "left_by_a_stranger:Eager"
    document["content_sha256"] = None
    path.write_text(json.dumps(document))
    (tmp_path / "left_by_a_stranger.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.chdir(tmp_path)
    command = ("simulate", profile_path, "--plan", path)
    code, _, err = call(capsys, *command)
    assert code == EXIT_BAD_INPUT
    assert "it was run" not in err
    assert "name it yourself with --strategy left_by_a_stranger:Eager" in err
    changed = Plan.read(path)
    assert plan_for(changed, path).options.schedule == DEFAULT_SCHEDULE
    code, _, err = call(capsys, *command, "--strategy", "left_by_a_stranger:Eager")
    assert code == EXIT_BAD_INPUT
    assert "it was run" in err


def test_a_schedule_of_ones_own_can_be_searched_for_if_it_alternates(capsys, profile_path, toys):
    search = ("plan", profile_path, "--devices", 2, "--global-batch", 16, "--json")
    document = json.loads(call(capsys, *search, "--schedule", f"{toys}:Eager")[1])
    words = shlex.split(document["search"]["command"])
    assert words[words.index("--strategy") + 1] == f"{toys}:Eager"
    assert "--lead" not in words
    assert {candidate["lead"] for candidate in document["search"]["candidates"]} == {1}
    code, _, err = call(capsys, *search, "--schedule", f"{toys}:Late")
    assert code == EXIT_BAD_INPUT
    assert "--devices compares the times of steps" in err


def test_an_order_that_the_cost_model_does_not_know_is_said(capsys, profile_path, toys):
    command = ("plan", profile_path, "--stages", 2, "--schedule", f"{toys}:Late", "--json")
    explanation = json.loads(call(capsys, *command)[1])["explanation"]
    assert "has an order of its own" in explanation["not_covered"][0]
    assert explanation["stretch"] is None


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("Boastful", "micro-batches in flight, allowed are 1"),
        ("Stale", "`version` says"),
        ("Crossed", "does not alternate"),
        ("Hasty", "in another order than more steps"),
        ("Unfinished", "fails on small pipelines"),
        ("first_alone", "accepted is an instance or a subclass of"),
        ("missing", "has no name 'missing'"),
    ],
)
def test_an_unsound_schedule_is_refused_before_anything_is_planned(
    capsys, profile_path, toys, what, sentence
):
    command = ("plan", profile_path, "--stages", 2, "--schedule", f"{toys}:{what}")
    code, out, err = call(capsys, *command)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert toys in err
    assert what in err
    assert sentence in err


@pytest.mark.parametrize("what", ["first_alone", "named"])
def test_a_planner_of_ones_own_is_a_function_or_a_planner(planned, toys, what):
    written = Plan.read(planned("--planner", f"{toys}:{what}"))
    assert written.cuts == (0, 1, 4)
    assert written.planner == f"{toys}:{what}"


def test_cuts_that_are_no_plan_are_refused(capsys, profile_path, toys):
    command = ("plan", profile_path, "--stages", 2, "--planner", f"{toys}:wrong")
    code, _, err = call(capsys, *command)
    assert code == EXIT_BAD_INPUT
    assert "cut at [0, 4], accepted for 2 stages of 4 layers are 3 ascending positions" in err
