"""One report over several campaigns: who is soonest at a target, cell by cell.

A cell is one model and data set of one campaign. Contestants of a cell are compared with each
other, never with those of another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hpc_lpm.campaign.entrants import Entrant, entrant_colours, is_proposed
from hpc_lpm.campaign.environment import read_environment
from hpc_lpm.campaign.figures.style import TIMES
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.metrics import MEMORY, THROUGHPUT, TRAFFIC
from hpc_lpm.campaign.pages import render_page
from hpc_lpm.campaign.results import CampaignResults, load_results
from hpc_lpm.campaign.statistics import estimate, paired_ratio, runs_of
from hpc_lpm.campaign.steps import settings_of
from hpc_lpm.campaign.summary import write_table
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.campaign.tuning.table import COLUMNS as TUNING_COLUMNS
from hpc_lpm.campaign.tuning.table import read_tunings, tuning_rows
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically

PAGE, TABLE = "report.html", "cells.csv"
"""The files of a joint report."""


@dataclass(frozen=True)
class Row:
    """What a joint report says of one contestant in one cell.

    `cells` are texts under the headings of `COLUMNS`; `seconds` is the expected time that a
    synchronous step's progress takes, None if it is unknown; `failure` tells why there are no
    numbers.
    """

    label: str
    cells: tuple[str, ...]
    seconds: float | None
    failure: str | None


COLUMNS = (
    *("samples/s", "of the limit", "ms a step", "steps", "time to target, ms", "over the proposed"),
    *("memory, MiB", "kB sent a sample", "runs"),
)
"""Headings after the contestant's.

Steps to a target are relative to those of synchronous training, as measured by the delay benchmark.
The time to the target is what a step of it takes at this speed; where it is unknown, so is its
ratio to that of the proposed method.
"""


@dataclass(frozen=True)
class Cell:
    """One model and data set of one campaign: the contestants, the soonest at a target first."""

    campaign: str
    title: str
    rows: list[Row]
    colours: dict[str, str]


@dataclass(frozen=True)
class JointOutcome:
    """What a joint report says, and where it is."""

    path: Path
    cells: list[Cell]

    @property
    def failures(self) -> int:
        """The number of contestants of all cells that have no numbers."""
        return sum(row.failure is not None for cell in self.cells for row in cell.rows)


def write_joint_report(
    roots: Sequence[Path], out: Path, refused: Mapping[str, Mapping[str, str]] | None = None
) -> JointOutcome:
    """Write a page and a table over several campaigns to the folder `out`.

    A contestant without a run is a row that says why.

    Args:
        roots: the folders of the campaigns, in order.
        out: the folder of the report.
        refused: why contestants could not enter, by the campaign's name and their labels.

    Raises:
        InputError: if one of them is not the folder of a campaign, or `out` is one.
    """
    if CampaignFolder(out).campaign.exists():
        raise InputError(
            f"--out {out} is the folder of a campaign, whose report the joint one would replace: "
            "name another folder."
        )
    campaigns = [load_results(root) for root in roots]
    cells = [
        cell
        for results in campaigns
        for cell in cells_of(results, (refused or {}).get(results.campaign.name, {}))
    ]
    tunings = {
        f"{results.campaign.name}/{name}": tuned
        for results in campaigns
        for name, tuned in read_tunings(results.folder, results.trials).items()
    }
    context = {
        "cells": cells,
        "columns": COLUMNS,
        "tuning_columns": TUNING_COLUMNS,
        "tunings": tuning_rows(tunings),
        "machines": {results.campaign.name: _machine(results) for results in campaigns},
    }
    write_text_atomically(out / PAGE, render_page("joint.html.j2", context))
    write_table(_table(cells), out / TABLE)
    return JointOutcome(out / PAGE, cells)


def cells_of(results: CampaignResults, refused: Mapping[str, str]) -> list[Cell]:
    """Return the cells of a campaign, in the order of its trials.

    `refused` tells by labels why further contestants could not enter.
    """
    races: dict[tuple[str, str], dict[Entrant, Trial]] = {}
    for trial in results.trials:
        if trial.length is None:
            who = Entrant.of(trial)
            races.setdefault(who.race, {}).setdefault(who, trial)
    return [_cell(results, entered, refused) for entered in races.values()]


def _cell(
    results: CampaignResults, entered: dict[Entrant, Trial], refused: Mapping[str, str]
) -> Cell:
    summary = results.summary
    tried = [who for who in entered if len(summary) and len(runs_of(summary, who))]
    ratios = {who: _steps_ratio(results, entered[who]) for who in tried}
    limit = next((who for who in tried if strategy_named(who.strategy).independent), None)
    seconds = {who: _seconds(results, who, ratios[who]) for who in tried}
    proposed = [who for who in tried if is_proposed(who) and seconds[who] is not None]
    first = min(proposed, key=lambda who: seconds[who] or 0.0, default=None)
    rows = [_row(results, who, ratios, seconds[who], limit, first) for who in tried]
    # The limit is no contestant; those whose time is unknown come after the others.
    rows.sort(key=lambda row: (row.seconds is None, row.seconds or 0.0))
    rows += [_missing(results, who) for who in entered if who not in tried]
    rows += [Row(label, (), None, why) for label, why in refused.items()]
    model, dataset = next(iter(entered)).race
    return Cell(
        results.campaign.name, f"{model} on {dataset}", rows, entrant_colours(list(entered))
    )


def _row(
    results: CampaignResults,
    who: Entrant,
    ratios: dict[Entrant, float | None],
    seconds: float | None,
    limit: Entrant | None,
    first: Entrant | None,
) -> Row:
    summary, ratio = results.summary, ratios[who]
    runs = runs_of(summary, who)
    speeds = runs[THROUGHPUT.name].dropna().tolist()
    # One process that plays several devices has none of theirs.
    speed = estimate(speeds) if speeds else None
    batch = results.campaign.batch_size
    of_limit = paired_ratio(summary, who, limit, THROUGHPUT.name) if limit else None
    over = ""
    if first is not None and first != who and ratio is not None:
        slower, base = paired_ratio(summary, first, who, THROUGHPUT.name), ratios[first]
        over = slower.text(2, ratio / base, TIMES) if slower and base else ""
    sent = runs[TRAFFIC.name].median() / (runs["steps"].median() * batch)
    return Row(
        who.label,
        (
            speed.text(1) if speed else "",
            of_limit.text(3) if of_limit and who != limit else "",
            f"{1000 * batch / speed.median:.1f}" if speed else "",
            "" if who == limit else "unknown" if ratio is None else f"{ratio:.2f}",
            f"{1000 * seconds:.1f}" if seconds is not None else "",
            over,
            _shown(MEMORY.scale * runs[MEMORY.name].median(), 0),
            _shown(sent / 1000, 1),
            str(len(runs)),
        ),
        seconds,
        None,
    )


def _seconds(results: CampaignResults, who: Entrant, ratio: float | None) -> float | None:
    """Return the seconds in which a contestant comes as far as a synchronous step comes.

    None where steps or speed are unknown, as where one process has played all devices.
    """
    if ratio is None or strategy_named(who.strategy).independent:
        return None
    speed = float(runs_of(results.summary, who)[THROUGHPUT.name].median())
    return None if math.isnan(speed) else ratio * results.campaign.batch_size / speed


def _shown(value: float, digits: int) -> str:
    """Return a number, nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _steps_ratio(results: CampaignResults, trial: Trial) -> float | None:
    settings = settings_of(results.campaign, results.folder, trial)
    return strategy_named(trial.strategy).expected_steps_ratio(
        settings, trial.ranks, trial.model, replicas=trial.replicas
    )


def _missing(results: CampaignResults, who: Entrant) -> Row:
    reasons = [each.reason for each in results.missing if Entrant.of(each.trial) == who]
    reasons += [each.reason for each in results.absent if each.contestant == who.name]
    return Row(who.label, (), None, reasons[0] if reasons else "it was not run")


def _machine(results: CampaignResults) -> str:
    found = read_environment(results.folder.environment)
    if found is None:
        return "not recorded"
    processor = found.get("processor", {}).get("Model name", "unknown processor")
    revision = (found.get("git") or {}).get("revision") or "no git checkout"
    cores, started = found.get("cores", "unknown"), found.get("started", "an unknown time")
    return f"{processor}, {cores} cores, from {started}, {revision}"


def _table(cells: Sequence[Cell]) -> pd.DataFrame:
    rows = [
        {
            "campaign": cell.campaign,
            "cell": cell.title,
            "contestant": row.label,
            **dict(zip(COLUMNS, row.cells or [""] * len(COLUMNS), strict=True)),
            "failure": row.failure or "",
        }
        for cell in cells
        for row in cell.rows
    ]
    return pd.DataFrame(rows)
