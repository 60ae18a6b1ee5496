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
        ((*SEARCH, "--micro-batches", 4), "--micro-batches is 4"),
        ((*SEARCH, "--planner", "uniform"), "--planner is 'uniform'"),
        ((*SEARCH, "--speeds", "1,1,1,1"), "--speeds has one entry per stage"),
        ((*SEARCH, "--memory-limit", "9,9,9,9"), "--memory-limit has one entry per stage"),
        ((*SEARCH, "--memory-limit", "9"), "within the memory limit of 9 bytes"),
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
