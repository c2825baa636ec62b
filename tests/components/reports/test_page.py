"""A page extends the base, escapes what it is given, and refuses to be drawn with a hole."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from components.errors import ArtifactError
from components.reports.page import SLOT, page_with_slot, render_page, with_part


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "mine.html.jinja"
    path.write_text(
        '{% extends "base.html.jinja" %}{% block headline %}{{ name }}{% endblock %}'
        "{% block style %}.mine { color: red; }{% endblock %}"
        "{% block main %}<p>{{ name | words }}</p>{{ slot }}{% endblock %}"
    )
    return path


def test_a_page_has_the_common_look_and_its_own(template: Path) -> None:
    page = render_page(template, name="a <b>")
    assert "<title>Proximal: a &lt;b&gt;</title>" in page and "<p>A &lt;b&gt;</p>" in page
    assert page.index("--accent:") < page.index(".mine { color: red; }") < page.index("</style>")


def test_a_value_that_nobody_gave_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        render_page(template)


def test_a_part_is_put_where_the_page_has_its_slot(template: Path, tmp_path: Path) -> None:
    stored = tmp_path / "page.html"
    stored.write_text(render_page(template, name=SLOT))  # a text of the data that looks like the slot is none
    page = with_part(page_with_slot(stored), "<section>later</section>")
    assert page.count("</p><section>later</section></main>") == 1 and SLOT not in page


def test_a_page_without_a_slot_is_named(tmp_path: Path) -> None:
    for content, found in ((None, "no such file"), ("<p>old</p>", "another page")):
        stored = tmp_path / "page.html"
        if content is not None:
            stored.write_text(content)
        with pytest.raises(ArtifactError) as error:
            page_with_slot(stored)
        assert (error.value.where, error.value.found) == (str(stored), found)
