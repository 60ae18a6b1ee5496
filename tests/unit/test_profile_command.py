"""`hpc-lpm profile`, `models` and `datasets` as users and scripts call them."""

import json
from pathlib import Path

import pytest

from hpc_lpm.cli import datasets, models, profile  # noqa: F401  registers the commands
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.data.registry import DATASETS
from hpc_lpm.models.registry import MODELS
from hpc_lpm.profile_file import Profile


def profile_arguments(model: str, out: Path, *more: str) -> list[str]:
    fixed = ["--dataset", "digits,size=8", "--micro-batch", "4", "--repeats", "2"]
    return ["profile", model, *fixed, "--out", str(out), *more]


def test_profile_is_written_and_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "profile.json"
    assert run_guarded(app, profile_arguments("mlp,width=8", out)) == EXIT_DONE
    written = Profile.read(out)
    assert written.model == "mlp,width=8"
    assert [layer.name for layer in written.layers] == ["hidden1", "hidden2", "hidden3", "output"]
    assert (written.micro_batch, written.device, written.dtype) == (4, "cpu", "float32")
    assert written.environment["link"] == "assumed"
    assert written.environment["ranks"] == 1
    assert written.environment["threads"] == 1
    shown = capsys.readouterr().out
    assert "hidden2" in shown
    assert "All 4 layers" in shown


def test_precision_and_memory_format_are_in_the_profile_and_missing_in_old_ones(
    tmp_path: Path,
) -> None:
    out = tmp_path / "profile.json"
    chosen = ["--precision", "bf16", "--memory-format", "channels_last"]
    assert run_guarded(app, profile_arguments("mlp,width=8", out, *chosen)) == EXIT_DONE
    written = Profile.read(out)
    assert (written.dtype, written.memory_format) == ("bfloat16", "channels_last")
    document = json.loads(out.read_text(encoding="utf-8"))
    del document["memory_format"]
    assert Profile.from_document(document, "old").memory_format == "contiguous"


def test_json_on_stdout_is_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "profile.json"
    assert run_guarded(app, profile_arguments("mlp,width=8", out, "--json")) == EXIT_DONE
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text(encoding="utf-8"))


def test_long_models_are_shown_by_their_heaviest_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = profile_arguments("resnet32,width=1", tmp_path / "profile.json")
    assert run_guarded(app, arguments) == EXIT_DONE
    shown = capsys.readouterr().out
    assert "the 10 heaviest of 63 layers" in shown
    assert (
        sum(
            "block" in line or "stem" in line or "classifier" in line for line in shown.splitlines()
        )
        == 10
    )


def test_wrong_model_is_one_sentence_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "profile.json"
    assert run_guarded(app, profile_arguments("mpl", out)) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert "did you mean 'mlp'" in captured.err
    assert captured.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "names"), [("models", MODELS.names()), ("datasets", DATASETS.names())]
)
def test_lists_name_everything_with_its_options(
    command: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(app, [command, "--json"]) == EXIT_DONE
    listed = {entry["name"]: entry["options"] for entry in json.loads(capsys.readouterr().out)}
    assert list(listed) == names
    of_text = {"sequence": 128, "test": None, "tokenizer": None, "pattern": None, "hidden": False}
    expected = {"models": ("resnet20", {"width": 16}), "datasets": ("text", of_text)}
    name, options = expected[command]
    assert listed[name] == options
    assert run_guarded(app, [command]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*names, "module:callable"])
