"""Renders HTML pages that open from disk and need nothing else; all share one look."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hpc_lpm.campaign.comparison.compare import Comparison
from hpc_lpm.campaign.comparison.tables import race_changes, trial_sentences
from hpc_lpm.campaign.figures.changes import draw_changes
from hpc_lpm.campaign.figures.style import figure_style
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically


def render_page(template: str, context: dict[str, Any]) -> str:
    """Render one of the templates in `templates/`, which all extend `page.html.j2`."""
    environment = Environment(
        loader=PackageLoader("hpc_lpm", "campaign/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_code"] = _with_code
    return environment.get_template(template).render(context)


def _with_code(sentence: str) -> Markup:
    """Return a sentence for a page, what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(sentence))))


def write_comparison_page(comparison: Comparison, path: Path) -> None:
    """Write the page of a comparison, and the folders on the way to `path` if they are missing.

    Raises:
        InputError: if it cannot be written there.
    """
    races, colours = race_changes(comparison), comparison.b.colours()
    with figure_style():
        figures = [draw_changes(race, colours) for race in races]
    context = {
        "comparison": comparison,
        "races": list(zip(races, figures, strict=True)),
        "trial_sentences": trial_sentences(comparison),
        "colours": colours,
    }
    page = render_page("comparison.html.j2", context)
    try:
        write_text_atomically(path, page)
    except OSError as error:
        raise InputError(
            f"--html {path} cannot be written ({error.strerror}): name a file in a folder that "
            "can be written to."
        ) from None
