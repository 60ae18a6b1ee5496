"""The page of a comparison: one file that opens from disk and needs nothing else."""

from pathlib import Path

from hpc_lpm.campaign.change import METRIC_TITLES
from hpc_lpm.campaign.compare import Comparison
from hpc_lpm.campaign.comparison_tables import race_changes, trial_sentences
from hpc_lpm.campaign.figures.changes import draw_changes
from hpc_lpm.campaign.figures.style import figure_style, strategy_colour
from hpc_lpm.campaign.page import render_page
from hpc_lpm.files import write_text_atomically


def write_comparison_page(comparison: Comparison, path: Path) -> None:
    """Write the page; folders that are missing on the way to `path` are made."""
    races = race_changes(comparison)
    with figure_style():
        figures = [draw_changes(race) for race in races]
    context = {
        "comparison": comparison,
        "races": list(zip(races, figures, strict=True)),
        "trial_sentences": trial_sentences(comparison),
        "metric_titles": METRIC_TITLES,
        "colour": strategy_colour,
    }
    write_text_atomically(path, render_page("comparison.html.j2", context))
