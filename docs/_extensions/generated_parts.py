"""Fills in those parts of the reference that are generated from the package itself.

A page holds a line such as `<!-- generated: commands -->`; its text replaces that line whenever the
page is read, so that no generated text is committed and none can be out of date.
"""

import re
from collections.abc import Callable

from campaign_keys import campaign_keys
from command_pages import command_pages
from library_page import library_page
from named_entries import named_entries
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PARTS: dict[str, Callable[[], str]] = {
    "campaign keys": campaign_keys,
    "commands": command_pages,
    "library": library_page,
    "named entries": named_entries,
}
"""Returns the Markdown of every part that a page may ask for."""

_MARKER = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


def filled_in(text: str) -> str:
    """Replace every marker of a page by its part.

    Raises:
        KeyError: if a marker names no part.
    """
    return _MARKER.sub(lambda marker: PARTS[marker[1]](), text)


def _fill_in(_: Sphinx, __: str, content: list[str]) -> None:
    content[0] = filled_in(content[0])


def _always_read(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Name the pages with generated parts: they change without their files changing."""
    return [
        name
        for name in env.found_docs
        if _MARKER.search(env.doc2path(name).read_text(encoding="utf-8"))
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("source-read", _fill_in)
    app.connect("env-get-outdated", _always_read)
    return {"parallel_read_safe": True}
