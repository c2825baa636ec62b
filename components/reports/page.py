"""Pages from templates: each extends base.html.jinja, which lies here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render_page(template: Path, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """The HTML of a page. Values are escaped, and one that the template names and nobody gave is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= dict(filters)
    return pages.get_template(template.name).render(**values)
