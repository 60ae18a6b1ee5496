import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])

FILE = """
name: small
models: [mlp]
datasets: [digits]
strategies: [sequential, fbp]
epochs: 1
repeats: 2
"""


def expecting(at_least: float) -> dict[str, object]:
    return {
        "metric": "samples_per_second",
        "strategy": "fbp",
        "relative_to": "deepspeed-1f1b",
        "at_least": at_least,
    }


def test_validate_lists_the_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(FILE)
    assert run_guarded(app, ["validate", str(path)]) == 0
    assert "4 trials" in capsys.readouterr().out
    assert run_guarded(app, ["validate", str(path), "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert [trial["strategy"] for trial in trials] == 2 * ["sequential", "fbp"]


@pytest.mark.parametrize(
    ("addition", "word"),
    [("batch: 3\n", "'batch_size'"), ("planners: [best]\n", "planner 'best'")],
)
def test_validate_refuses_a_faulty_file_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], addition: str, word: str
) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(FILE + addition)
    assert run_guarded(app, ["validate", str(path)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "faulty.yaml" in complaint
    assert word in complaint


def test_validate_misses_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(app, ["validate"]) == 2
    assert "config/quick.yaml" in capsys.readouterr().err


def test_validate_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(app, ["validate", "--schema"]) == 0
    assert "batch_size" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize(("at_least", "code"), [(1.2, 0), (1.3, 1)])
def test_expectations_decide_the_exit_code(tmp_path: Path, at_least: float, code: int) -> None:
    folder = write_folder(tmp_path / "c", campaign(expect=[expecting(at_least)]))
    out = tmp_path / "expectations.json"
    arguments = ["campaign", "expectations", str(folder.root), "--out", str(out)]
    assert run_guarded(app, arguments) == code
    assert out.exists() == (code == 0)


@pytest.mark.parametrize(("at_least", "code"), [(1.2, 0), (1.3, 1)])
def test_compare_judges_the_second_campaign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at_least: float, code: int
) -> None:
    a = write_folder(tmp_path / "a", campaign(repeats=6, strategies=["fbp", "deepspeed-1f1b"]))
    chosen = campaign(repeats=6, strategies=["fbp", "deepspeed-1f1b"], expect=[expecting(at_least)])
    b = write_folder(tmp_path / "b", chosen, speed_factor=1.5)
    assert run_guarded(app, ["compare", str(a.root), str(b.root), "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["held"] is (code == 0)
    verdicts = {(c["contestant"], c["metric"]): c["verdict"] for c in document["changes"]}
    assert verdicts["resnet20 digits fbp lpm", "samples_per_second"] == "better"
    assert verdicts["resnet20 digits fbp lpm", "peak_memory_bytes"] == "inconclusive"
    assert all(document["same_weights"].values())
    assert run_guarded(app, ["compare", str(a.root), str(b.root)]) == code
    assert "12 of 12 common trials ended in the very same" in capsys.readouterr().out


def test_the_environment_step_tells_what_the_campaign_runs_on(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign(seeds=[4]))
    folder.environment.unlink()
    assert run_guarded(app, ["campaign", "environment", str(folder.root)]) == 0
    assert json.loads(folder.environment.read_text())["seeds"] == [4]
    assert (folder.root / "provenance" / "Snakefile").exists()


def test_launch_passes_on_exit_code_and_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    log = tmp_path / "log.txt"
    arguments = ["campaign", "launch", str(folder.root), "--ranks", "1", "--log", str(log), "--"]
    assert run_guarded(app, [*arguments, "validate", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().out
    assert "nowhere.yaml" in log.read_text()
    record = Launch.read(tmp_path / "log.launch.json")
    assert record.exit_code == 2
    assert record.nodes == (record.machines[0].host,)


def test_a_trial_that_fails_leaves_a_record_of_its_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    name = "resnet20-digits-sequential-k1-seed0-repeat0"
    (folder.run(name) / "launch.json").unlink()
    log = folder.run(name) / "train.log"
    launch = ["campaign", "launch", str(folder.root), "--ranks", "1", "--trial", name]
    arguments = [*launch, "--log", str(log), "--", "train", "--model", "none"]
    assert run_guarded(app, arguments) == 2
    record = json.loads((folder.run(name) / "launch.json").read_text())
    assert record["exit_code"] == 2
    assert run_guarded(app, arguments) == 2
    again = Launch.read(folder.run(name) / "launch.json")
    assert [attempt.exit_code for attempt in again.attempts] == [2, 2]
    assert again.attempts[0].nodes == again.nodes
    assert "failed after" in capsys.readouterr().out


def unsealed(before: str, after: str) -> Callable[[str], str]:
    def changed(text: str) -> str:
        return re.sub('"content_sha256": "[0-9a-f]+"', '"content_sha256": null', text).replace(
            before, after
        )

    return changed


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: text.replace('"lr": 0.1', '"lr": 0.2'), "was changed after it had been"),
        (unsealed('"lr": 0.1', '"lr": 0.2'), "was trained with optimizer.lr 0.2"),
        (unsealed('"ranks": 2', '"ranks": 3'), "was trained with ranks"),
    ],
    ids=["truncated", "changed", "other settings", "other ranks"],
)
def test_a_result_that_is_not_of_the_campaign_is_refused_by_all_commands(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[str], str],
    why: str,
) -> None:
    whole = write_folder(tmp_path / "whole", campaign())
    folder = write_folder(tmp_path / "c", campaign(expect=[expecting(0.1)]))
    trial = "resnet20-digits-fbp-lpm-k2-seed0-repeat0"
    result = folder.run(trial) / "result.json"
    result.write_text(harm(result.read_text()))
    root, out = str(folder.root), str(tmp_path / "expectations.json")
    assert run_guarded(app, ["report", root]) == 1
    said = capsys.readouterr()
    assert f"missing: {trial}: " in said.out
    assert why in said.out
    assert said.err.startswith("hpc-lpm: 1 trial is missing")
    assert why in unescape(folder.report.read_text())
    assert run_guarded(app, ["campaign", "expectations", root, "--out", out]) == 1
    assert "1 result is refused" in capsys.readouterr().err
    assert not Path(out).exists()
    Path(out).write_text("mine")
    assert run_guarded(app, ["campaign", "expectations", root, "--out", out]) == 2
    assert "something else than the verdicts" in capsys.readouterr().err
    assert Path(out).read_text() == "mine"
    for pair in ((root, str(whole.root)), (str(whole.root), root)):
        assert run_guarded(app, ["compare", *pair]) == 1
        assert "1 result is refused" in capsys.readouterr().err
