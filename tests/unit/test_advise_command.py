"""`hpc-lpm advise`: what it prints, what it writes, and what it refuses in one sentence."""

import json
import os

import pytest
import yaml
from test_forecasts import layer

from hpc_lpm.cli import advise  # noqa: F401  registers the command
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.models.registry import create_model
from hpc_lpm.profile_file import LinkProfile, Profile

MODEL = "mlp,layers=4,width=8"


@pytest.fixture
def profile(tmp_path):
    """Write a profile of the model: 3 s a layer, large gradients and small messages."""
    return write(tmp_path / "profile.json")


def write(path, micro_batch=4, dtype="float32", names=None, **fields):
    model = create_model(MODEL, dataset_shape("digits"))
    names = names or [each.name for each in model.layers]
    Profile(
        model=MODEL,
        micro_batch=micro_batch,
        device="cpu",
        dtype=dtype,
        layers=tuple(layer(name, 1.0, 2.0, output=1, parameters=6400) for name in names),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=6400.0),
        environment={"link": "measured"},
        **fields,
    ).write(path)
    return path


def run(*options):
    return run_guarded(app, ["advise", MODEL, "--dataset", "digits", "--devices", "2", *options])


def read(capsys, *options):
    assert run("--batch-size", "16", *options, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_profile_is_enough_for_a_table_in_80_columns_and_the_reasons(profile, capsys):
    assert run("--batch-size", "16", "--profile", str(profile)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MODEL} on 2 devices, 16 samples a step, momentum"
    assert all(len(line) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "fbp 2 x 1 4 2 0.7 " in text
    assert "fbp is first: a step takes" in text
    assert "Link: 0 us latency, 6.4e-06 GB/s (measured)." in text
    assert "limit: each rank trains a model of its own" in text


def test_json_has_every_number_in_the_order_of_the_table(profile, capsys):
    told = read(capsys, "--profile", str(profile))
    assert (told["devices"], told["batch_size"], told["optimizer"]) == (2, 16, "momentum")
    first, second = told["strategies"][:2]
    assert first["strategy"] == "fbp"
    assert first["effective_samples_per_second"] >= second["effective_samples_per_second"]
    # Two layers of 3 s a stage, and 4 micro-batches of 4 samples.
    assert first["step_seconds"] == pytest.approx(24, rel=1e-3)
    assert first["samples_per_second"] == pytest.approx(16 / 24, rel=1e-3)
    assert first["cuts"] == [0, 2, 4]
    assert told["why"].startswith("fbp is first")
    assert told["what_changes_it"]
    assert {left["strategy"] for left in told["left_out"]} >= {"limit"}
    assert any(each["strategy"] == "intraop" and each["at_best"] for each in told["strategies"])


def test_links_nodes_and_memory_are_those_that_are_given(profile, capsys):
    told = read(
        capsys,
        *("--profile", str(profile), "--latency", "50us", "--bandwidth", "1e9"),
        *("--node-link", "1ms:1e8", "--devices-per-node", "1", "--memory-limit", "100kB"),
        *("--optimizer", "adamw", "--recipe", "none"),
    )
    assert told["link"]["latency_seconds"] == pytest.approx(5e-5)
    assert told["node_link"]["bandwidth_bytes_per_second"] == 1e8
    assert told["devices_per_node"] == 1
    assert told["memory_limit_bytes"] == 100_000
    # 25,600 bytes of weights four times, and activations.
    left = {each["strategy"]: each["reason"] for each in told["left_out"]}
    assert "needs 102,528 bytes" in left["ddp"]
    assert "one node" in left["intraop"]


def test_without_a_profile_the_model_is_profiled_at_the_micro_batches_that_are_named(capsys):
    told = read(capsys, "--micro-batch", "8", "--repeats", "1")
    assert {each["micro_batch"] for each in told["strategies"]} == {8}
    # Where this machine has a core for each device, its threads have been measured.
    (threads,) = [each for each in told["strategies"] if each["strategy"] == "intraop"]
    assert threads["at_best"] is (len(os.sched_getaffinity(0)) < 2)


def test_the_campaign_is_written_and_named_after_its_file(profile, tmp_path, capsys):
    path = tmp_path / "race.yaml"
    run("--batch-size", "16", "--profile", str(profile), "--write-campaign", str(path))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Written to {path}; race them with: snakemake --cores 2 --configfile {path}" in printed
    document = yaml.safe_load(path.read_text())
    assert document["name"] == "race"
    assert len(document["strategies"]) == 3


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ([], 0.1),
        (["--optimizer", "sgd"], 0.1),
        (["--optimizer", "AdamW"], 0.001),
        (["--optimizer", "muon"], 0.003),
        (["--optimizer", "RMSprop"], 0.01),
        (["--optimizer", "adamw", "--lr", "0.02"], 0.02),
    ],
)
def test_the_campaign_has_the_usual_rate_of_its_optimizer(options, rate, profile, tmp_path, capsys):
    path = tmp_path / "race.yaml"
    read(capsys, "--profile", str(profile), *options, "--write-campaign", str(path))
    assert yaml.safe_load(path.read_text())["optimizer"]["lr"] == rate


def test_the_campaign_keeps_images_in_the_order_that_was_profiled(tmp_path, capsys):
    profile = write(tmp_path / "profile.json", memory_format="channels_last")
    path = tmp_path / "race.yaml"
    read(capsys, "--profile", str(profile), "--write-campaign", str(path))
    assert yaml.safe_load(path.read_text())["memory_format"] == "channels_last"


def test_several_profiles_are_compared(tmp_path, capsys):
    paths = [write(tmp_path / f"{size}.json", size) for size in (2, 4)]
    told = read(capsys, *(word for path in paths for word in ("--profile", str(path))))
    # Both take as long a micro-batch, so that larger ones are faster.
    assert told["strategies"][0]["micro_batch"] == 4


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--devices", "1"], "--devices is 1, accepted are whole numbers from 2"),
        (["--memory-limit", "1GiB,2GiB"], "--memory-limit has one entry per stage"),
        (["--memory-limit", "much"], "--memory-limit is 'much'"),
        (["--memory-limit", "abc"], 'accepted is a whole number of bytes, "512MB" or "4GiB".'),
        (["--memory-limit", "4XB"], 'accepted is a whole number of bytes, "512MB" or "4GiB".'),
        (["--memory-limit", "1kB"], "no strategy can train"),
        (["--node-link", "1ms:1e8"], "--devices-per-node is missing"),
        (["--devices-per-node", "2"], "--node-link is missing"),
        (["--node-link", "1ms:1e8", "--devices-per-node", "0"], "--devices-per-node is 0"),
        (["--node-link", "fast", "--devices-per-node", "1"], "--node-link has 'fast'"),
        (["--latency", "soon"], "--latency is 'soon'"),
        (["--bandwidth", "0"], "--bandwidth is 0"),
        (["--recipe", "salt"], "--recipe is 'salt'"),
        (["--also", "nowhere:Own"], "module 'nowhere' of strategy 'nowhere:Own'"),
        (["--also", "nothing"], "strategy 'nothing' is unknown"),
        (["--micro-batch", "4"], "--micro-batch and --profile are both given"),
        (["--repeats", "4"], "--repeats and --profile are both given"),
        (["--device", "cpu"], "--device and --profile are both given"),
        (["--precision", "bf16"], "--precision is bf16, but --profile is of fp32"),
        (["--batch-size", "7"], "no strategy can train"),
        (["--lr", "-1"], "a number above 0, found -1.0"),
        (["--efficiency", "none.csv"], "efficiency file none.csv does not exist"),
        (["--write-campaign", "/"], "/ cannot be used"),
        (["--loss", "nothing"], "nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(options, found, profile, capsys):
    assert run("--profile", str(profile), *options) == 2
    said = capsys.readouterr().err
    assert found in said
    assert len(said.strip().splitlines()) == 1


def test_profiles_of_another_model_or_of_one_size_twice_are_refused(tmp_path, profile, capsys):
    other = write(tmp_path / "other.json", names=["a", "b"])
    assert run("--profile", str(other)) == 2
    assert f"--profile is of {MODEL} with 2 layers (a to b)" in capsys.readouterr().err
    assert run("--profile", str(profile), "--profile", str(profile)) == 2
    assert "micro-batches of 4, 4 samples: give one for each size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        (["3"], "--micro-batch is 3, accepted are numbers of samples that divide the 64"),
        (["0"], "--micro-batch is 0"),
        (["4", "4"], "names a size twice"),
    ],
)
def test_sizes_that_do_not_divide_the_batch_are_refused(sizes, found, capsys):
    assert run(*(word for size in sizes for word in ("--micro-batch", size))) == 2
    assert found in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--devices", "0"], "--devices is 0, accepted are whole numbers from 2"),
        (["--devices", "-3"], "--devices is -3, accepted are whole numbers from 2"),
        (["--batch-size", "0"], "--batch-size is 0, accepted are numbers from 1"),
    ],
)
def test_numbers_are_checked_before_anything_is_profiled(options, found, capsys):
    assert run(*options) == 2
    assert found in capsys.readouterr().err
