"""The text of a comparison in 80 columns, and its page."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.comparison.compare import compare_folders
from hpc_lpm.campaign.comparison.tables import race_changes
from hpc_lpm.campaign.figures.changes import draw_changes
from hpc_lpm.campaign.figures.style import figure_style
from hpc_lpm.campaign.pages import write_comparison_page
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.result import RunResult

register([])

Roots = tuple[Path, Path]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    folder = tmp_path_factory.mktemp("pair")
    chosen = campaign(
        models=["resnet20", "vgg11"],
        planners=["lpm", "uniform"],
        strategies=["sequential", "fbp", "horovod"],
        seeds=[0, 1, 2],
        epochs=10,
    )
    a = write_folder(folder / "a", chosen)
    b = write_folder(folder / "b", chosen, speed_factor=1.5)
    for path in b.root.glob("runs/*-horovod-k2-seed0-*/result.json"):
        path.unlink()
    return a.root, b.root


def text_of(roots: Roots, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert run_guarded(app, ["compare", *map(str, roots), *options]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--trials",)])
def test_no_line_is_longer_than_80_columns(
    roots: Roots, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    lines = text_of(roots, capsys, *options).splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_strategies_come_first_and_trials_only_where_asked_for(
    roots: Roots, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = text_of(roots, capsys), text_of(roots, capsys, "--trials")
    assert "fbp (uniform)" in short
    assert "trial by trial" not in short
    assert "throughput: 44 better, 0 worse, 0 inconclusive" in " ".join(short.split())
    assert long.index("vgg11 on digits\n") < long.index("resnet20 on digits, trial by trial")


def test_a_long_list_is_cut_and_counted(
    roots: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_folder(tmp_path / "c", campaign(strategies=["fbp"], repeats=8))
    for path in empty.root.glob("runs/*/result.json"):
        path.unlink()
    found = text_of((empty.root, empty.root), capsys)
    assert found.count("and 2 more (--json lists all)") == 2
    assert "no weights to compare" in " ".join(found.split())


def test_the_page_needs_nothing_but_itself(
    roots: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new folder" / "page.html"
    assert str(path) in text_of(roots, capsys, "--html", str(path)).replace("\n", "")
    page = path.read_text()
    assert "<script" not in page
    assert "@import" not in page
    assert re.findall(r'(?:src|href|action)="(?!#)[^"]*"', page) == []
    assert not re.findall(r"url\((?!#)", page)


def test_the_page_shows_every_change_trial_and_absence(roots: Roots, tmp_path: Path) -> None:
    comparison = compare_folders(*roots)
    write_comparison_page(comparison, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert comparison.headline() in page
    assert page.count("<h2>resnet20 on digits</h2>") == 1
    assert page.count("<svg ") == 2
    shown = len(re.findall(r"better</span>", page))
    verdicts = [entry.change.verdict for entry in comparison.contestants]
    verdicts += [
        change.verdict for trial in comparison.trials for change in trial.changes if change.low
    ]
    assert shown == verdicts.count("better")
    for absence in comparison.missing_in_b:
        assert f"<li>{absence.trial}: " in page


def test_the_page_of_campaigns_that_share_nothing_says_so(roots: Roots, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "o", campaign(models=["mlp"], strategies=["fbp"]))
    write_comparison_page(compare_folders(roots[0], other.root), tmp_path / "page.html")
    assert "Nothing to compare" in (tmp_path / "page.html").read_text()


def test_the_forest_plot_draws_every_change_but_traffic(roots: Roots) -> None:
    race = race_changes(compare_folders(*roots))[0]
    with figure_style():
        figure = draw_changes(race)
    assert ElementTree.fromstring(figure.svg).get("aria-label") == figure.description
    for title in ("throughput", "accuracy", "memory"):
        assert f">{title}<" in figure.svg
    fbp = figure.data.set_index(["contestant", "metric"]).loc[("fbp (lpm)", "samples_per_second")]
    assert fbp["value"] == pytest.approx(1.5)
    assert fbp["low"] <= 1.5 <= fbp["high"]


def test_a_trial_without_accuracy_leaves_its_cell_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = campaign(strategies=["fbp"], repeats=2)
    roots = tuple(write_folder(tmp_path / name, chosen).root for name in "ab")
    path = next(roots[1].glob("runs/*-repeat0/result.json"))
    RunResult.read(path).model_copy(update={"test_accuracy": []}).write(path)
    page = tmp_path / "page.html"
    text_of((roots[0], roots[1]), capsys, "--trials", "--html", str(page))
    rows = re.findall(r"<tr>.*?</tr>", page.read_text(), re.DOTALL)
    cells = [row.count("<td") for row in rows if ">0, 0<" in row or ">0, 1<" in row]
    assert cells == [6, 6]


def test_a_page_that_cannot_be_written_is_one_sentence(
    roots: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(app, ["compare", *map(str, roots), "--html", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"hpc-lpm: --html {tmp_path} cannot be written (")
    assert captured.err.count("\n") == 1
