"""Names of models, data sets, contestants and files are shown as they are, wherever they hold
what rich, Typer or matplotlib would take for markup."""

import io
import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import pytest
from campaign_folders import campaign, write_folder
from pydantic import Field
from rich.console import Console

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.cli.option_values import command_parameters
from hpc_lpm.cli.output import print_table
from hpc_lpm.engine.run_reporter import TerminalBar
from hpc_lpm.options import CommandOption, StrategyOptions, described_fields

register([])

NAMES = ["corpus[/en]", "[old]", "[bold red]x", ":smile:", "[link=http://a.b]c[/link]", "{0}{x!r}"]


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    found = run_guarded(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out


@pytest.mark.parametrize("name", NAMES)
def test_a_table_and_a_bar_show_names_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(f"title {name}", [f"column {name}"], [[f"cell {name}"]])
    shown = capsys.readouterr().out
    assert all(f"{part} {name}" in shown for part in ("title", "column", "cell"))
    terminal = io.StringIO()
    bar = TerminalBar(name, 4, Console(file=terminal, force_terminal=True, width=120))
    bar.message(f"resuming from {name}")
    bar.step(2, name)
    bar.close()
    assert f"resuming from {name}" in terminal.getvalue()
    assert terminal.getvalue().count(name) > 2


def named_campaign() -> Any:
    entries = [{"fbp": {"name": name}} for name in [*NAMES, "$\\frac$", "_hidden", "fbp"]]
    return campaign(strategies=["sequential", *entries], repeats=1)


def test_a_campaign_of_such_names_is_validated_reported_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = named_campaign()
    root = write_folder(tmp_path / "[old]", chosen).root
    lost = next(root.glob("runs/*-_hidden-*/result.json"))
    lost.unlink()
    config = tmp_path / "[old].json"
    config.write_text(chosen.model_dump_json())
    validated = said(capsys, "validate", config)
    assert f"{config} is valid" in validated
    reported = said(capsys, "report", root, code=1)  # a trial is missing
    assert f"Report in {root / 'report.html'}." in reported
    compared = said(capsys, "compare", root, root)
    for name in NAMES[:4]:
        assert name in validated
        assert name in reported
        assert name in compared.replace("\n", "")
    drawn = next((root / "figures").glob("accuracy-*.svg")).read_text()
    assert "$\\frac$" in drawn
    assert "corpus[/en]" in drawn


def test_a_legend_shows_labels_that_begin_with_an_underscore(tmp_path: Path) -> None:
    from hpc_lpm.campaign.report import write_report

    root = write_folder(tmp_path / "c", campaign(strategies=[{"fbp": {"name": "_x"}}])).root
    write_report(root)
    assert ">_x<" in next((root / "figures").glob("accuracy-*.svg")).read_text()


def test_a_long_label_leaves_room_for_the_figure(tmp_path: Path) -> None:
    from hpc_lpm.campaign.report import write_report

    label = "a name that fills the page " * 10
    chosen = campaign(strategies=["sequential", {"fbp": {"name": label}}], repeats=1)
    root = write_folder(tmp_path / "c", chosen).root
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        write_report(root)
    assert label in (root / "report.html").read_text()


def test_files_with_such_names_are_named_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "[bold]x.graph.txt"
    cost = "forward_compute_time=1.0, backward_compute_time=2.0, activation_size=4.0"
    nodes = [f"node{n} -- Conv[/x] -- {cost}, parameter_size=4.0" for n in (1, 2)]
    graph.write_text("\n".join([*nodes, "\tnode1 -- node2", ""]))
    out = tmp_path / ("[old]" * 20 + ".json")
    planned = said(capsys, "plan", graph, "--stages", 2, "--out", out)
    assert f"Written to {out}." in planned
    assert "[bold]x" in planned
    assert json.loads(out.read_text())["model"] == "[bold]x"
    simulated = said(capsys, "simulate", graph, "--plan", out)
    assert "[bold]x" in simulated


@pytest.mark.parametrize("value", ["[/x]", ":smile:", "[bold]"])
def test_a_refused_value_is_named_as_it_is(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["plan", "x.json", "--stages", value],
        ["train", "--model", value, "--dataset", "digits", "--out", "o"],
        ["train", "--model", "mlp", "--dataset", "digits", "--out", "o", "--precision", value],
        ["validate", value],
        [value],
    ):
        assert run_guarded(app, arguments) == 2
        assert value in capsys.readouterr().err


def test_the_help_shows_brackets_of_a_description() -> None:
    class Own(StrategyOptions):
        depth: Annotated[
            int, Field(description="one of [1], [/2]"), CommandOption("Own", metavar="N")
        ] = 1

    (parameter,) = command_parameters(described_fields(Own))
    from rich.text import Text

    option = parameter.annotation.__metadata__[0]
    assert Text.from_markup(option.help).plain == "one of [1], [/2] (1 by default)"


def test_rows_of_several_data_sets_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = campaign(datasets=["digits", "digits,size=16"], strategies=["sequential", "fbp"])
    root = write_folder(tmp_path / "c", chosen).root
    reported = said(capsys, "report", root)
    assert reported.count("resnet20 on digits, medians") == 1
    assert reported.count("resnet20 on digits,size=16, medians") == 1
    assert reported.count("trains resnet20 on") == 2
    compared = said(capsys, "compare", root, root, "--trials")
    assert compared.count("resnet20 on digits\n") == 1
    assert compared.count("resnet20 on digits,size=16\n") == 1
