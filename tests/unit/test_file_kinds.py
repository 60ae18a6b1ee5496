"""A file that is given for another kind of file is called what it is."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.config import read_campaign
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.settings import read_settings
from hpc_lpm.errors import InputError
from hpc_lpm.file_kinds import kind_of
from hpc_lpm.files import VersionedFile
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.profile_formats.read import read_profile

register([])

GRAPH = """\
node1 -- Conv -- forward_compute_time=1.0, backward_compute_time=2.0, activation_size=64.0, \
parameter_size=4.0
node2 -- Linear -- forward_compute_time=1.0, backward_compute_time=2.0, activation_size=40.0, \
parameter_size=4.0
\tnode1 -- node2
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of every kind, as the toolkit and torch's profiler write them."""
    folder = tmp_path_factory.mktemp("kinds")
    chosen = campaign(strategies=["fbp"], repeats=1)
    written = write_folder(folder / "c", chosen)
    run = next(written.root.glob("runs/*"))
    layer = LayerProfile(
        name="a",
        forward_seconds=0.0,
        backward_seconds=0.0,
        output_bytes=40,
        parameter_bytes=4,
        activation_bytes=4,
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9)
    Profile(
        model="m", micro_batch=1, device="cpu", dtype="float32", layers=(layer,) * 2, link=link
    ).write(folder / "profile.json")
    settings = {"model": "mlp", "dataset": "digits", "epochs": 1}
    (folder / "settings.json").write_text(json.dumps(settings))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        torch.ones(2) + 1
    profiler.export_chrome_trace(str(folder / "torch.json"))
    events = json.loads((folder / "torch.json").read_text())["traceEvents"]
    (folder / "events.json").write_text(json.dumps([e for e in events if "ts" in e]))
    (folder / "short.json").write_text((folder / "torch.json").read_text()[:-40])
    return {
        "profile": folder / "profile.json",
        "plan": next(written.root.glob("plans/*.json")),
        "result": run / "result.json",
        "launch record": run / "launch.json",
        "campaign file": written.campaign,
        "settings file": folder / "settings.json",
        "trace": folder / "torch.json",
        "list of events": folder / "events.json",
        "trace cut short": folder / "short.json",
        "our own trace": run / "trace.json",
    }


CALLED = {
    "profile": "a profile, as `hpc-lpm profile` writes it",
    "plan": "a plan, as `hpc-lpm plan` writes it",
    "result": "the result of a run",
    "launch record": "the record of a launch",
    "campaign file": "a campaign file",
    "settings file": "a settings file",
    "trace": "a trace of events, as torch.profiler",
    "list of events": "a trace of events",
    "our own trace": "a trace of events",
    "trace cut short": "a trace of events",
}


@pytest.mark.parametrize("given", CALLED)
@pytest.mark.parametrize(
    ("read", "wanted"),
    [
        (read_profile, "profile"),
        (Plan.read, "plan"),
        (RunResult.read, "result"),
        (Launch.read, "launch record"),
    ],
)
def test_each_reader_tells_what_it_was_given(
    files: dict[str, Path], read: object, wanted: str, given: str
) -> None:
    if given == wanted:
        assert isinstance(read(files[given]), VersionedFile)  # type: ignore[operator]
        return
    with pytest.raises(InputError) as refused:
        read(files[given])  # type: ignore[operator]
    assert f"{files[given]} is {CALLED[given]}" in str(refused.value)
    assert f"name the {wanted} instead" in str(refused.value)


@pytest.mark.parametrize("given", [kind for kind in CALLED if kind != "trace cut short"])
def test_settings_and_campaigns_tell_likewise(files: dict[str, Path], given: str) -> None:
    for read, wanted in ((read_settings, "settings file"), (read_campaign, "campaign file")):
        if given == wanted:
            read(files[given])
            continue
        with pytest.raises(InputError, match=f"no {wanted}") as refused:
            read(files[given])
        assert f"{files[given]} is {CALLED[given]}" in str(refused.value)


def test_a_compressed_file_is_to_be_unpacked(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(files["trace"].read_bytes()))
    with pytest.raises(InputError, match="is compressed by gzip"):
        read_profile(path)


def test_other_documents_are_of_no_kind() -> None:
    for document in ({}, [], [1], "text", None, {"schema_version": 1}, {"model": "mlp"}):
        assert kind_of(document) is None


def test_the_commands_say_so_in_one_sentence(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(app, ["plan", str(files["trace"]), "--stages", "2"]) == 2
    said = capsys.readouterr().err
    assert "as torch.profiler" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["graph.txt", "profile.json"])
def test_replay_takes_what_plan_takes(
    name: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files["profile"] if name == "profile.json" else tmp_path / name
    if name == "graph.txt":
        path.write_text(GRAPH)
    out = tmp_path / "plan.json"
    assert run_guarded(app, ["plan", str(path), "--stages", "2", "--out", str(out)]) == 0
    command = ["train", "--model", f"replay:{path}", "--dataset", "digits", "--steps", "1"]
    register(command)
    command += ["--strategy", "sequential", "--batch-size", "4", "--out", str(tmp_path / "run")]
    assert run_guarded(app, command) == 0, capsys.readouterr().err
    assert RunResult.read(tmp_path / "run" / "result.json").model == f"replay:{path}"


def test_replay_tells_what_it_was_given(files: dict[str, Path]) -> None:
    from hpc_lpm.data.registry import load_dataset
    from hpc_lpm.models.registry import create_model

    with pytest.raises(InputError, match=r"as torch\.profiler"):
        create_model(f"replay:{files['trace']}", load_dataset("digits").shape)
