"""A page extends the base, escapes what it is given, and refuses to be drawn with a hole."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from components.reports.page import render_page


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "mine.html.jinja"
    path.write_text(
        '{% extends "base.html.jinja" %}{% block title %}{{ name }}{% endblock %}'
        "{% block style %}.mine { color: red; }{% endblock %}{% block main %}<p>{{ name | loud }}</p>{% endblock %}"
    )
    return path


def test_a_page_has_the_common_look_and_its_own(template: Path) -> None:
    page = render_page(template, {"loud": str.upper}, name="a <b>")
    assert "<title>a &lt;b&gt;</title>" in page and "<p>A &lt;B&gt;</p>" in page
    assert page.index("--accent:") < page.index(".mine { color: red; }") < page.index("</style>")


def test_a_value_that_nobody_gave_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        render_page(template, {"loud": str.upper})
