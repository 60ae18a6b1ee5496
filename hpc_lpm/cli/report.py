"""`hpc-lpm report`: writes tables, figures and the HTML page of a campaign."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_DONE, EXIT_NOT_HELD
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.campaign.report import ReportOutcome


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="folder of a campaign, e.g. results/quick, or several")
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder of the joint report of several campaigns")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the statistics as JSON")] = False,
) -> int:
    """Write summary, statistics, figures and report.html from the finished runs.

    Of several campaigns one page and one table are written to --out: every contestant of every
    race, the soonest at a target first. The exit code is 1 if trials are missing.
    """
    if out is not None or len(folders) > 1:
        return _joint(folders, out, as_json=as_json)
    from hpc_lpm.campaign.report import write_report

    outcome = write_report(folders[0])
    if as_json:
        records = outcome.statistics.to_json(orient="records")
        print_json(
            {
                "report": str(outcome.path),
                "headline": outcome.headline,
                "absent": [asdict(absent) for absent in outcome.absent],
                "missing": [missing.trial.name for missing in outcome.missing],
                "notes": outcome.notes,
                "targets": [
                    {
                        "race": race.title,
                        "metric": race.target.metric,
                        "value": race.target.value,
                        "sentence": race.target.sentence,
                        "notes": race.target.notes,
                    }
                    for race in outcome.races
                    if race.target
                ],
                "statistics": json.loads(records),
            }
        )
        return _exit_code(outcome)
    for race in outcome.races:
        if race.target and race.target.rows:
            title = f"{race.title}, speed x worth of a step = time to target"
            print_table(title, race.target.columns, race.target.rows)
            console().print(race.target.sentence)
        for note in race.target.notes if race.target else []:
            console().print(f"{note}.", soft_wrap=True)
        print_table(f"{race.title}, medians over runs and pairs of runs", race.columns, race.rows)
        console().print(race.sentence)
    if not outcome.races:
        console().print(outcome.headline)
    for absent in outcome.absent:
        console().print(f"{absent.sentence()}.")
    for note in outcome.notes:
        console().print(f"{note}.", soft_wrap=True)
    for missing in outcome.missing:
        console().print(f"missing: {missing.trial.name}: {missing.reason}", soft_wrap=True)
    console().print(f"Report in {outcome.path}.", soft_wrap=True)
    return _exit_code(outcome)


def _joint(folders: list[Path], out: Path | None, *, as_json: bool) -> int:
    from hpc_lpm.campaign.joint_report import COLUMNS, write_joint_report

    if out is None:
        raise InputError(
            f"report was given {len(folders)} folders without --out: name the folder of their "
            "joint report, such as --out results/bench."
        )
    outcome = write_joint_report(folders, out)
    if as_json:
        print_json({"report": str(outcome.path), "cells": [asdict(c) for c in outcome.cells]})
    else:
        for cell in outcome.cells:
            rows = [[row.label, *(row.cells or [""] * len(COLUMNS))] for row in cell.rows]
            print_table(f"{cell.campaign}: {cell.title}", ["contestant", *COLUMNS], rows)
            for row in cell.rows:
                if row.failure:
                    console().print(f"{row.label}: {row.failure}.", soft_wrap=True)
        console().print(f"Report in {outcome.path}.", soft_wrap=True)
    return EXIT_NOT_HELD if outcome.failures else EXIT_DONE


def _exit_code(outcome: "ReportOutcome") -> int:
    if not outcome.missing:
        return EXIT_DONE
    what = "1 trial is" if len(outcome.missing) == 1 else f"{len(outcome.missing)} trials are"
    typer.echo(
        f"hpc-lpm: {what} missing from {outcome.path}, which says why: call snakemake to train "
        "what is missing.",
        err=True,
    )
    return EXIT_NOT_HELD
