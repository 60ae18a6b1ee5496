"""HTML pages that open from disk and need nothing else: one look, one place that renders them."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_page(template: str, context: dict[str, Any]) -> str:
    """Return a page made of a template of this package, which extends `page.html.j2`."""
    environment = Environment(
        loader=PackageLoader("hpc_lpm", "campaign"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)
