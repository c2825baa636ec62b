"""The data report in Chromium: on a phone, on a wide screen and on paper nothing of it is cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_checks import A4, CUT_OFF

from components.config import DataValidation
from components.data_validation.page import page_of
from components.data_validation.report import report_of
from components.data_validation.validate import validate

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1400, "screen"), (A4, "print")])
def test_nothing_is_cut_off(
    browser: Browser, world: Any, limits: Callable[..., DataValidation], tmp_path: Path, width: int, media: Any
) -> None:
    world.demonstrations[4] |= {"response": "", "prompt": "without_a_blank_" * 20}
    for row in world.comparisons:
        row["annotator"] = "a_very_long_name_of_a_person_" * 3 + row["annotator"]
    raw = world.raw()
    validated = validate(raw, limits(), 1)
    (tmp_path / "report.html").write_text(page_of(raw, validated, report_of(raw, validated)), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.emulate_media(media=media)
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("h1").inner_text() == "Clean data was written; 1 check needs a look"
    assert page.locator("#quarantine td").first.is_visible()
    if media == "screen":
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.locator("#checks details td").first.is_visible()  # folded parts are open on paper
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
