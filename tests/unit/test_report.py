import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from campaign_folders import SPEEDS, campaign, write_folder

from hpc_lpm.campaign.entrants import Entrant, entrant_colours
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.results import load_results
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.records import Straggle
from hpc_lpm.engine.result import RunResult

register([])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a campaign") / "synthetic"
    write_folder(root, campaign())
    write_report(root)
    return root


def test_the_report_needs_nothing_but_itself(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "<script" not in page
    assert "@import" not in page
    # Names of XML vocabularies look like addresses, but nothing is fetched from them.
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert not [address for address in addresses if re.match(r"(https?:)?//", address)]
    assert not re.findall(r"url\((?!#)", page)


def test_links_of_the_report_lead_to_files_of_the_campaign(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    links = re.findall(r'<a href="([^"]*)"', page)
    assert len(links) > 8
    assert [link for link in links if not (finished / link).is_file()] == []


def test_every_figure_is_valid_and_has_its_data_beside_it(finished: Path) -> None:
    figures = sorted((finished / "figures").glob("*.svg"))
    kinds = {figure.name.split("-")[0] for figure in figures}
    assert kinds == {"throughput", "accuracy", "memory", "plan", "timeline"}
    for figure in figures:
        root = ElementTree.fromstring(figure.read_text())
        assert root.get("viewBox")
        assert root.get("aria-label")
        assert not pd.read_csv(figure.with_suffix(".csv")).empty


def test_the_headline_is_computed_from_the_runs(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    headline = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert headline
    for rival in ("sequential", "deepspeed-1f1b", "horovod"):
        assert rival in headline[1]
        assert f"{SPEEDS['fbp'] / SPEEDS[rival]:.2f} times" in headline[1]


def test_the_report_says_whose_the_method_is(finished: Path) -> None:
    page = " ".join((finished / "report.html").read_text().split())
    assert "nothing on this page is a figure of that paper" in page


def test_every_run_is_a_row_of_the_summary(finished: Path) -> None:
    summary = pd.read_csv(finished / "summary.csv")
    assert len(summary) == 8
    fbp = summary[(summary["strategy"] == "fbp") & (summary["repeat"] == 1)].iloc[0]
    assert fbp["samples_per_second"] == pytest.approx(323.2)
    assert fbp["test_accuracy"] == pytest.approx(0.921)
    assert fbp["peak_memory_bytes"] == 110 * 2**20
    assert fbp["bytes_sent"] == 2 * 12 * 2**20
    assert fbp["idle_share"] == pytest.approx(0.1)
    assert fbp["contestant"] == "fbp"
    stored = pd.read_parquet(finished / "summary.parquet")
    assert stored["samples_per_second"].tolist() == summary["samples_per_second"].tolist()


def test_accuracy_is_drawn_over_the_seconds_of_training(finished: Path) -> None:
    table = pd.read_csv(finished / "figures" / "accuracy-resnet20-digits.csv")
    fbp = table[table["trial"].str.contains("fbp") & table["trial"].str.endswith("repeat0")]
    # Four steps of 64 samples at 320 samples per second each epoch.
    assert fbp["training_seconds"].tolist() == pytest.approx([0.8, 1.6, 2.4])
    assert fbp["test_accuracy"].tolist() == pytest.approx([0.90, 0.91, 0.92])


def test_timelines_share_one_time_scale(finished: Path) -> None:
    table = pd.read_csv(finished / "figures" / "timeline-resnet20-digits.csv")
    assert set(table["contestant"]) == {"fbp", "deepspeed-1f1b"}
    assert set(table["phase"]) == {"forward", "backward", "update"}
    assert table["start_seconds"].min() >= 0
    # Three steps of 4 x 3 ms, an update of 0.5 ms and 1 ms of waiting.
    assert table["stop_seconds"].max() <= 3 * 13.5e-3 + 1e-9


def test_the_plan_figure_knows_the_stage_of_each_layer(finished: Path) -> None:
    (path,) = (finished / "figures").glob("plan-*.csv")
    assert pd.read_csv(path)["stage"].tolist() == [0, 0, 1, 1]


def test_a_missing_trial_is_named_and_breaks_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    for name in (
        "resnet20-digits-horovod-k2-seed0-repeat0",
        "resnet20-digits-fbp-lpm-k2-seed0-repeat1",
    ):
        for path in folder.run(name).iterdir():
            path.unlink()
    broken = folder.run("resnet20-digits-sequential-k1-seed0-repeat1") / "result.json"
    broken.write_text('{"schema_version": 1}')
    outcome = write_report(folder.root)
    assert len(outcome.missing) == 3
    page = folder.report.read_text()
    assert "3 of 8 trials are missing" in page
    for missing in outcome.missing:
        assert f"<li>{missing.trial.name}: {missing.reason}".replace("'", "&#39;") in page


def test_without_a_plan_a_trace_or_metrics_the_rest_is_still_shown(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    for pattern in (
        "plans/*.json",
        "runs/*/trace.json",
        "runs/*/metrics.jsonl",
        "runs/*/launch.json",
    ):
        for path in folder.root.glob(pattern):
            path.unlink()
    folder.environment.unlink()
    write_report(folder.root)
    kinds = {path.name.split("-")[0] for path in folder.figures.glob("*.svg")}
    assert kinds == {"throughput", "accuracy", "memory"}


def test_a_campaign_without_any_run_has_a_report_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    for path in folder.root.glob("runs/*/result.json"):
        path.unlink()
    outcome = write_report(folder.root)
    assert "No trial" in outcome.headline
    assert "8 of 8 trials are missing" in folder.report.read_text()


def test_results_are_read_where_neither_the_model_nor_the_data_are(tmp_path: Path) -> None:
    chosen = campaign(models=["network_elsewhere:net"], datasets=["samples_elsewhere:made"])
    folder = write_folder(tmp_path / "copied", chosen)
    write_report(folder.root)
    page = folder.report.read_text()
    assert "network_elsewhere:net" in page
    assert len(load_results(folder.root).runs) == 8


def test_several_races_have_a_section_each(tmp_path: Path) -> None:
    chosen = campaign(models=["resnet20", "vgg11"], planners=["lpm", "uniform"], repeats=1)
    folder = write_folder(tmp_path / "c", chosen)
    write_report(folder.root)
    page = folder.report.read_text()
    assert "<h2>resnet20 on digits</h2>" in page
    assert "<h2>vgg11 on digits</h2>" in page
    assert "fbp (uniform)" in page


def test_the_same_runs_give_the_same_figures(tmp_path: Path) -> None:
    figures = []
    for name in ("a", "b"):
        folder = write_folder(tmp_path / name, campaign())
        write_report(folder.root)
        figures.append({path.name: path.read_text() for path in folder.figures.iterdir()})
    assert figures[0] == figures[1]


def contestants(*names: str) -> list[Entrant]:
    return [Entrant("m", "d", name, name, None) for name in names]


def test_a_contestant_keeps_its_colour_and_differs_from_every_other() -> None:
    main = entrant_colours(contestants(*SPEEDS))
    assert len(set(main.values())) == len(SPEEDS)
    more = entrant_colours(contestants("gpipe", "1f1b", "naive", "limit", *SPEEDS))
    assert len(set(more.values())) == len(SPEEDS) + 4
    assert {name: more[name] for name in SPEEDS} == main
    assert entrant_colours(contestants("gpipe"))["gpipe"] == more["gpipe"]


def test_two_contestants_of_one_strategy_differ_in_their_colours() -> None:
    pair = [Entrant("m", "d", "fbp", f"fbp-{policy}", "lpm") for policy in ("live", "replay")]
    assert len(set(entrant_colours(pair).values())) == 2


def test_the_report_command_prints_its_findings_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    assert run_guarded(app, ["report", str(folder.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(folder.report)
    assert document["missing"] == []
    ratio = next(
        row
        for row in document["statistics"]
        if row["strategy"] == "fbp"
        and row["comparison"] == "ratio"
        and row["relative_to"] == "sequential"
    )
    assert ratio["median"] == pytest.approx(1.6)
    assert ratio["interval_low"] is None


def test_a_folder_that_is_no_campaign_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(app, ["report", str(tmp_path)]) == 2
    assert "is not the folder of a campaign" in capsys.readouterr().err


def test_ranks_that_held_up_a_trial_are_named_once_each(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "slow", campaign())
    path = sorted(folder.root.glob("runs/*fbp*/result.json"))[0]
    slow = [
        Straggle(rank=0, host="n1", factor=1.5, beside="before", from_step=2, seconds=12.0),
        Straggle(rank=1, host="n2", factor=3.0, beside="before", from_step=9, seconds=40.0),
    ]
    RunResult.read(path).model_copy(update={"stragglers": slow}).write(path)
    noted = [note for note in write_report(folder.root).notes if "held up" in note]
    (note,) = noted
    assert "rank 1 on n2 in " in note
    assert note.endswith(", 3.0 times as long for 40 s")
    assert note in (folder.root / "report.html").read_text()
