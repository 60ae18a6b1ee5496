"""The page of a comparison: one file that opens from disk and needs nothing else."""

from pathlib import Path

from hpc_lpm.campaign.change import METRIC_TITLES
from hpc_lpm.campaign.compare import Comparison
from hpc_lpm.campaign.comparison_tables import race_changes, trial_sentences
from hpc_lpm.campaign.figures.changes import draw_changes
from hpc_lpm.campaign.figures.style import figure_style, strategy_colour
from hpc_lpm.campaign.page import render_page
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically


def write_comparison_page(comparison: Comparison, path: Path) -> None:
    """Write the page; folders that are missing on the way to `path` are made.

    Raises:
        InputError: if it cannot be written there.
    """
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
    page = render_page("comparison.html.j2", context)
    try:
        write_text_atomically(path, page)
    except OSError as error:
        raise InputError(
            f"--html {path} cannot be written ({error.strerror}): name a file in a folder that "
            "can be written to."
        ) from None
