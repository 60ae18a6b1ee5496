"""Pages run nothing and load nothing, whatever the names are that stand on them."""

import re

import matplotlib.figure

from hpc_lpm.campaign.figures.style import figure_style, to_svg
from hpc_lpm.campaign.joint_report import COLUMNS, Cell, Row
from hpc_lpm.campaign.pages import render_page

HOSTILE = "<script>alert(1)</script>\"' onload=alert(2) &amp; <img src=x>"


def test_hostile_names_stand_on_a_page_as_text() -> None:
    row = Row(HOSTILE, (HOSTILE,) * len(COLUMNS), 1.0, None)
    failed = Row(HOSTILE, (), None, HOSTILE)
    cell = Cell(HOSTILE, HOSTILE, [row, failed], {HOSTILE: "#000000"})
    page = render_page(
        "joint.html.j2",
        {
            "cells": [cell],
            "columns": COLUMNS,
            "tuning_columns": ("what",),
            "tunings": [[HOSTILE]],
            "machines": {HOSTILE: HOSTILE},
        },
    )
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5 + len(COLUMNS) + 2 + 1
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.split("; ")[0] == "default-src 'none'"
    assert "script-src" not in policy


def test_hostile_names_stand_in_a_figure_as_text() -> None:
    with figure_style():
        figure = matplotlib.figure.Figure()
        axes = figure.subplots()
        axes.plot([1, 2], label=HOSTILE)
        axes.set_title(HOSTILE)
        axes.legend()
        text = to_svg(figure, HOSTILE)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script" in text
