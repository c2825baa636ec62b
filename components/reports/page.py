"""Pages from templates: each extends base.html.jinja, which lies here; and what is added to a page afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.errors import ArtifactError
from components.reports.numbers import FILTERS

# Where a later stage may add to a page. Text from data and models is escaped, so that it never holds this.
SLOT = "<!-- what came after -->"


def render_page(template: Path, **values: Any) -> str:
    """The HTML of a page, or of a part of one.

    Values are escaped, and one that the template names and nobody gave is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= FILTERS
    pages.globals["slot"] = Markup(SLOT)
    return pages.get_template(template.name).render(**values)


def page_with_slot(page: Path) -> str:
    """A stored page that can be added to.

    Raises:
        ArtifactError: the page is absent, or has no slot.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if text.count(SLOT) != 1:
        raise ArtifactError(
            "a page cannot be added to",
            where=str(page),
            expected="the page of the present code",
            found="another page" if text else "no such file",
            do="run `dvc repro --force evaluation`",
        )
    return text


def with_part(page: str, part: str) -> str:
    """A page with a part put where it has its slot."""
    return page.replace(SLOT, part)
