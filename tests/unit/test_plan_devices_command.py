"""`plan --devices` as a user calls it, and what `simulate` makes of the plan that it writes."""

import hashlib
import json
import shlex

import pytest

from hpc_lpm.cli import plan, simulate  # noqa: F401  registers them
from hpc_lpm.cli import train as train_module
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def write_profile(path, micro_batch=4, parameters=40_000, layers=8, **fields):
    chain = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=0.001 * micro_batch,
            backward_seconds=0.002 * micro_batch,
            output_bytes=250 * micro_batch,
            parameter_bytes=parameters,
            activation_bytes=300 * micro_batch,
        )
        for number in range(layers)
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e6)
    values = {"model": "toy", "device": "cpu", "dtype": "float32", **fields}
    Profile(micro_batch=micro_batch, layers=chain, link=link, **values).write(path)
    return path


@pytest.fixture
def profiles(tmp_path):
    return [write_profile(tmp_path / f"profile-{size}.json", size) for size in (4, 8)]


def call(capsys, *arguments):
    """Return exit code, stdout and stderr of the command line."""
    code = run_guarded(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


SEARCH = ("--devices", 4, "--global-batch", 64, "--weights", "live")
TARGET = ("--objective", "time-to-target")


def searched(capsys, *arguments):
    code, out, _ = call(capsys, "plan", *arguments, "--json")
    assert code == EXIT_DONE
    return json.loads(out)


def test_json_has_the_plan_and_every_candidate_best_first(capsys, profiles):
    document = searched(capsys, *profiles, *SEARCH)
    search = document["search"]
    candidates = search["candidates"]
    rates = [candidate["samples_per_second"] for candidate in candidates]
    assert rates == sorted(rates, reverse=True)
    names = ("stages", "replicas", "micro_batch", "micro_batches")
    assert {tuple(candidate[name] for name in names) for candidate in candidates} == {
        (1, 4, 4, 4),
        (1, 4, 8, 2),
        (2, 2, 4, 8),
        (2, 2, 8, 4),
        (4, 1, 4, 16),
        (4, 1, 8, 8),
    }
    best = candidates[0]
    assert best["samples_per_second"] == pytest.approx(64 / best["step_seconds"])
    assert [stage["stop"] for stage in document["stages"]] == best["cuts"][1:]
    assert document["options"]["replicas"] == best["replicas"]
    assert document["options"]["micro_batches"] == best["micro_batches"]
    assert document["options"]["lead"] == best["lead"]
    assert document["options"]["global_batch"] == 64
    assert search["left_out"] == []


def test_table_shows_the_candidates_and_the_sentences_why_the_first_is_best(capsys, profiles):
    document = searched(capsys, profiles[0], *SEARCH)
    code, out, _ = call(capsys, "plan", profiles[0], *SEARCH)
    assert code == EXIT_DONE
    assert "toy on 4 devices, 64 samples per step" in out
    assert document["search"]["why"] in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines()[:-2])
    # 64 samples in 16 micro-batches of 24 ms; three times 80 kB and seven times 2.4 kB.
    assert "4 1 16 4 2 166.7 0.24 stage 0" in " ".join(out.split())
    assert "stage 0, all-reduce" in out
    assert "toy in 4 stages by planner lpm" in out
    best = document["search"]["candidates"][0]
    assert (best["stages"], best["replicas"], best["lead"]) == (4, 1, 2)
    for text in (
        "4 stages x 1 replica with micro-batches of 4 trains fastest: a step takes 384.000 ms",
        "bounded by the compute of stage 0.",
        "Next best is 2 stages x 2 replicas with micro-batches of 4, 37.5% slower",
        "bounded by the compute of stage 0 and the all-reduce of its gradients",
        "Lead 1 instead of 2 would be 6.2% slower.",
    ):
        assert text in document["search"]["why"]


def test_what_is_left_out_is_counted_and_listed(capsys, profiles):
    limit = ("--memory-limit", 600_000)
    search = searched(capsys, profiles[0], *SEARCH, *limit)["search"]
    assert {(item["stages"], item["lead"], item["reason"]) for item in search["left_out"]} == {
        (1, 1, "over the memory limit")
    }
    assert "Combinations left out: 1 (over the memory limit)." in search["why"]


def test_the_written_plan_simulates_at_the_rate_that_it_was_chosen_for(capsys, profiles, tmp_path):
    for weights in ("live", "replay"):
        for lead in (1, 2):
            arguments = ("--devices", 4, "--global-batch", 64, "--weights", weights)
            limit = ("--lead", lead, "--out", tmp_path / "plan.json")
            document = searched(capsys, profiles[0], *arguments, *limit)
            arguments = ("simulate", profiles[0], "--plan", tmp_path / "plan.json", "--json")
            simulated = json.loads(call(capsys, *arguments)[1])
            best = document["search"]["candidates"][0]
            assert simulated["samples_per_second"] == pytest.approx(
                best["samples_per_second"], rel=0.01
            )
            assert max(simulated["memory_bytes"]) == best["memory_bytes"]


def test_simulated_rate_counts_replicas_and_what_their_averages_take(capsys, tmp_path):
    rates = []
    for parameters in (4, 40_000):
        profile = write_profile(tmp_path / "one.json", parameters=parameters, layers=1)
        path = tmp_path / "plan.json"
        assert call(capsys, "plan", profile, *SEARCH, "--out", path)[0] == EXIT_DONE
        _, out, _ = call(capsys, "simulate", profile, "--plan", path, "--json")
        rates.append(json.loads(out)["samples_per_second"])
    # Four replicas take four micro-batches of 12 ms each. Averaging 40 kB at 1 MB/s takes 60 ms, of
    # which a forward of 4 ms hides as much.
    assert rates == [pytest.approx(64 / 0.048), pytest.approx(64 / (0.048 + 0.060 - 0.004))]


def test_the_plan_names_the_profile_that_it_was_made_from(capsys, profiles, tmp_path):
    path = tmp_path / "plan.json"
    document = searched(capsys, *profiles, *SEARCH, "--out", path)
    used = {4: profiles[0], 8: profiles[1]}[document["search"]["candidates"][0]["micro_batch"]]
    assert Plan.read(path).profile_sha256 == hashlib.sha256(used.read_bytes()).hexdigest()
    code, out, _ = call(capsys, "plan", *profiles, *SEARCH, "--out", path)
    assert code == EXIT_DONE
    assert f"Written to {path}." in out
    assert document["search"]["command"] in out


def test_the_command_that_is_printed_is_one_that_train_takes(capsys, tmp_path):
    profile = write_profile(
        tmp_path / "profile.json", dtype="bfloat16", memory_format="channels_last"
    )
    path = tmp_path / "my plan.json"
    document = searched(capsys, profile, *SEARCH, "--optimizer", "adam", "--out", path)
    words = shlex.split(document["search"]["command"])
    assert words[:8] == ["mpirun", "-n", "4", "--bind-to", "none", "python", "-m", "mpi4py"]
    assert words[8:11] == ["-m", "hpc_lpm", "train"]
    given = dict(zip(words[11::2], words[12::2], strict=True))
    best = document["search"]["candidates"][0]
    assert given == {
        "--model": "toy",
        "--dataset": "DATASET",
        "--strategy": "fbp",
        "--plan": str(path),
        "--batch-size": "64",
        "--micro-batches": str(best["micro_batches"]),
        "--lead": str(best["lead"]),
        "--weights": "live",
        "--optimizer": "adam",
        "--precision": "bf16",
        "--memory-format": "channels_last",
        "--out": "results/by-hand",
    }
    # Nothing but the data set, which the profile does not name, is wrong with it.
    train_module.register(words[10:])
    code, _, err = call(capsys, *words[10:])
    assert code == EXIT_BAD_INPUT
    assert "DATASET" in err


def test_one_device_needs_no_launcher(capsys, profiles):
    document = searched(capsys, profiles[0], "--devices", 1, "--global-batch", 8)
    assert document["search"]["command"].startswith("python -m hpc_lpm train --model toy ")
    document = searched(
        capsys, profiles[0], "--devices", 1, "--global-batch", 8, "--optimizer", "other"
    )
    assert "--optimizer OPTIMIZER" in document["search"]["command"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "neither --stages nor --devices is given"),
        (("--devices", 4), "--devices is given without --global-batch"),
        (("--devices", 4, "--stages", 2), "--stages and --devices are both given"),
        (("--stages", 2, "--global-batch", 8), "--global-batch is given with --stages"),
        (("--devices", 4, "--global-batch", 7), "--global-batch is 7"),
        ((*SEARCH, "--micro-batches", 5), "the replicas: accepted are 4, 8, 16, or leave it out"),
        ((*SEARCH, "--objective", "speed"), "--objective is 'speed', accepted are throughput and"),
        (
            (*SEARCH, *TARGET, "--optimizer", "other"),
            "--optimizer other with --recipe none nothing is measured: accepted",
        ),
        (("--stages", 2, *TARGET), "--objective is time-to-target with --stages"),
        ((*SEARCH, "--recipe", "best"), "--recipe is 'best', accepted are none, auto"),
        ((*SEARCH, "--prediction-rule", "guess"), "prediction_rule"),
        ((*SEARCH, "--efficiency", "none.csv"), "efficiency file none.csv does not exist"),
        ((*SEARCH, "--planner", "uniform"), "--planner is 'uniform'"),
        ((*SEARCH, "--speeds", "1,1,1,1"), "--speeds has one entry per stage"),
        ((*SEARCH, "--memory-limit", "9,9,9,9"), "--memory-limit has one entry per stage"),
        ((*SEARCH, "--memory-limit", "9"), "within the memory limit of 9 bytes"),
        (
            (*SEARCH, *TARGET, "--schedule", "interleaved-1f1b", "--chunks", 9),
            "places 9 stages on each device, but toy has 8 layers that may be cut apart: ask",
        ),
        ((*SEARCH, "--lead", "0"), "lead"),
        ((*SEARCH, "--links", "measured"), "links between stages are given without --stages"),
        ((*SEARCH, "--node-link", "0:1e9"), "links between stages are given without --stages"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(capsys, profiles, arguments, sentence):
    code, out, err = call(capsys, "plan", profiles[0], *arguments)
    assert code == EXIT_BAD_INPUT
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def efficiency_file(path, *ratios):
    """Write measurements of adamw: the ratio of steps of (stages, micro-batches)."""
    columns = "model_family,optimizer,recipe,stages,micro_batches,lead,weights,first_stage_lag,"
    rows = [
        f"toy,adamw,none,{stages},{micro_batches},1,live,{(stages - 1) / micro_batches},{ratio},"
        f"{ratio - 0.05},{ratio + 0.05},5,own study"
        for stages, micro_batches, ratio in ratios
    ]
    path.write_text("\n".join((f"{columns}steps_ratio,low,high,seeds,source", *rows)) + "\n")
    return path


def test_every_candidate_tells_its_lags_and_what_a_step_is_worth(capsys, profiles, tmp_path):
    measured = efficiency_file(tmp_path / "own.csv", (4, 16, 1.25))
    own = ("--efficiency", measured, "--optimizer", "adamw")
    document = searched(capsys, profiles[0], *SEARCH, *own, "--lead", 1)
    found = {one["stages"]: one for one in document["search"]["candidates"]}
    # d = 3, 2, 1, 0 over 16 micro-batches; 1, 0 and one more for the average, over 8.
    assert (found[4]["lag_mean"], found[4]["lag_largest"]) == (1.5 / 16, 1)
    assert (found[2]["lag_mean"], found[2]["lag_largest"]) == (1.5 / 8, 1)
    assert found[4]["step_worth"]["value"] == pytest.approx(1 / 1.25)
    assert found[4]["step_worth"]["low"] == pytest.approx(1 / 1.3)
    assert found[4]["step_worth"]["high"] == pytest.approx(1 / 1.2)
    assert found[2]["step_worth"]["value"] is None
    assert "lags by 0.25 updates on average" in found[2]["step_worth"]["reason"]
    rate = found[4]["samples_per_second"]
    assert found[4]["effective_samples_per_second"] == pytest.approx(rate / 1.25)
    assert found[2]["effective_samples_per_second"] is None
    best = document["search"]["candidates"][0]
    for name in ("lag_mean", "lag_largest", "step_worth"):
        assert document[name] == best[name]
    _, out, _ = call(capsys, "plan", profiles[0], *SEARCH, *own, "--lead", 1)
    assert "fbp live 4 16 0.09 1 0.80 0.77 0.83" in " ".join(out.split())
    assert "unknown" in out
    assert all(len(line) <= 80 for line in out.splitlines()[:-2])


def test_time_to_target_weighs_speed_by_worth_and_may_prefer_a_flush(capsys, profiles, tmp_path):
    memory = ("--memory-limit", 420_000)  # of 8 x 40 kB fourfold, so that 4 stages are needed
    given = ("--devices", 4, "--global-batch", 64, *memory, "--optimizer", "adamw", *TARGET)
    chosen = {}
    for name, ratio in (("lagging", 1.1), ("flushing", 1.6)):
        measured = efficiency_file(tmp_path / f"{name}.csv", (4, 16, ratio), (4, 8, 1.2 * ratio))
        path = tmp_path / f"{name}.json"
        arguments = (*given, "--efficiency", measured, "--out", path)
        search = searched(capsys, *profiles, *arguments)["search"]
        chosen[name] = search["candidates"][0]
        assert search["objective"] == "time-to-target"
        assert f"--strategy {chosen[name]['schedule']} " in search["command"]
        rates = [one["effective_samples_per_second"] for one in search["candidates"]]
        known = [rate for rate in rates if rate is not None]
        assert known == sorted(known, reverse=True)
        assert rates[: len(known)] == known
        written = Plan.read(path)
        assert written.options["schedule"] == chosen[name]["schedule"]
        assert written.step_worth.value == chosen[name]["step_worth"]["value"]
        assert search["why"].startswith("Prefer a flush: ") == (name == "flushing")
    assert (chosen["lagging"]["schedule"], chosen["lagging"]["weights"]) == ("fbp", "live")
    assert chosen["flushing"]["schedule"] == "1f1b"
    assert chosen["flushing"]["step_worth"]["reason"] == "no weights lag"


def test_what_the_user_named_is_not_varied(capsys, profiles, tmp_path):
    measured = efficiency_file(tmp_path / "own.csv", (4, 2, 1.5))
    given = (*profiles, "--devices", 4, "--global-batch", 64, "--optimizer", "adamw", *TARGET)
    given = (*given, "--efficiency", measured)
    for option, key, value in (
        ("--schedule", "schedule", "fbp"),
        ("--schedule", "schedule", "gpipe"),
        ("--micro-batches", "micro_batches", 8),
        ("--lead", "lead", 2),
    ):
        candidates = searched(capsys, *given, option, value)["search"]["candidates"]
        assert {one[key] for one in candidates} == {value}
    candidates = searched(capsys, *given, "--weights", "stash")["search"]["candidates"]
    assert {one["weights"] for one in candidates if one["schedule"] == "fbp"} == {"stash"}
    assert {one["schedule"] for one in candidates} == {"fbp", "1f1b"}


def test_the_command_names_recipe_and_rule_where_there_are_any(capsys, profiles):
    options = ("--optimizer", "adamw", "--recipe", "auto", "--prediction-rule")
    document = searched(capsys, profiles[0], *SEARCH, *options, "last-update")
    assert "--prediction --prediction-rule last-update" in document["search"]["command"]
    assert "--recipe auto" in document["search"]["command"]


def test_the_command_names_the_chunks_that_the_plan_has(capsys, profiles):
    given = (*TARGET, "--schedule", "interleaved-1f1b", "--chunks", 4)
    search = searched(capsys, profiles[0], "--devices", 2, "--global-batch", 64, *given)["search"]
    assert "--strategy interleaved-1f1b " in search["command"]
    assert "--chunks 4 " in search["command"]


def test_several_profiles_are_for_devices_alone(capsys, profiles):
    code, _, err = call(capsys, "plan", *profiles, "--stages", 2)
    assert code == EXIT_BAD_INPUT
    assert "2 profiles are given with --stages" in err


def test_no_hint_asks_for_a_lead_that_the_search_was_not_to_try(capsys, profiles):
    alone = call(capsys, "plan", profiles[0], "--stages", 4, "--micro-batches", 16)[1]
    assert "--lead 2 hides them" in " ".join(alone.split())
    found = call(capsys, "plan", profiles[0], *SEARCH, "--lead", 1)[1]
    assert "bounded by messages there and back" in " ".join(found.split())
    assert "hint" not in found
