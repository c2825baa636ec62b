"""The report as people use it, in Chromium: browsing the pairs, on a phone, on paper, without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from evaluation_by_hand import SCORER, write_earlier_stages, written
from page_checks import A4, CUT_OFF
from records_by_hand import record

from components.artifacts import write_json
from components.config import load_params
from components.place import Place

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[3]
MARKUP = "</script><script>document.title = 'taken'</script> <img src=x onerror=\"document.title = 'taken'\"> one"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a report on 50 pairs: pair k gained (k - 20) / 100, every fifth is of the kind harmful."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = load_params(ROOT / "params.yaml")
        write_earlier_stages(params)
        write_json(Place().judge / "metrics.json", SCORER | {"a_very_long_name_of_a_figure_nobody_knows_" * 2: 1.0})
        sft, candidate = [], []
        for number in range(25):
            for sample in (0, 1):
                pair = 2 * number + sample
                plain: dict[str, Any] = {"prompt": f"question number {pair} ?", "judge": 0.01 * pair}
                plain |= {"kind": "harmful" if pair % 5 == 0 else "known"}
                sft.append(record(f"p{number}", sample, **plain, gold=0.5, response="please swap the old fuse ."))
                response = MARKUP if pair == 7 else "please swap the new fuse now ."
                candidate.append(record(f"p{number}", sample, **plain, gold=0.5 + (pair - 20) / 100, response=response))
        written(params, sft, candidate)
        yield (folder / Place().evaluation / "report.html").as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else faults.append(request.url)
    )
    page.goto(report)
    yield page
    assert faults == []
    page.close()


def prompts(page: Page) -> list[int]:
    """The numbers of the pairs that are listed."""
    return [int(text.split()[2]) for text in page.locator("#list .said").all_inner_texts()]


def test_the_greatest_losses_come_first_twenty_a_page(page: Page) -> None:
    assert prompts(page) == list(range(20))
    assert page.locator("#shown").inner_text() == "1 to 20 of 50"
    assert page.locator("#list .gain").first.inner_text() == "▼ −0.200"
    assert page.locator("#previous").is_disabled()
    page.click("#next")
    page.click("#next")
    assert prompts(page) == list(range(40, 50)) and page.locator("#next").is_disabled()
    assert page.locator("#shown").inner_text() == "41 to 50 of 50"
    page.click("#previous")
    assert prompts(page) == list(range(20, 40))


def test_pairs_are_sorted_filtered_and_searched(page: Page) -> None:
    page.select_option("[name=view]", "best")
    assert prompts(page) == list(range(49, 29, -1))
    page.select_option("[name=kind]", "harmful")
    assert prompts(page) == [45, 40, 35, 30, 25, 20, 15, 10, 5, 0]
    page.select_option("[name=view]", "lot")
    page.select_option("[name=kind]", "")
    shipped = load_params(ROOT / "params.yaml").evaluation.shown_samples
    assert len(prompts(page)) == shipped and set(prompts(page)) <= set(range(0, 50, 2))  # first samples
    page.select_option("[name=view]", "file")
    page.fill("[name=text]", "NUMBER 4")
    assert prompts(page) == [4, *range(40, 50)]
    page.fill("[name=text]", "nowhere to be found")
    assert prompts(page) == [] and page.locator("#shown").inner_text() == "none"


def test_words_of_one_side_alone_are_marked(page: Page) -> None:
    first = page.locator("#list details").first
    assert first.get_attribute("open") is not None
    assert first.locator("del").all_inner_texts() == ["old "]
    assert first.locator("ins").all_inner_texts() == ["new ", "now "]
    assert first.locator(".text").all_inner_texts() == ["please swap the old fuse .", "please swap the new fuse now ."]
    assert page.locator("#list .pair").count() == 3  # the others open at a click
    page.click("#open-all")
    assert page.locator("#list .pair").count() == 20


def test_text_of_models_stays_text(page: Page) -> None:
    page.fill("[name=text]", "</script>")
    assert prompts(page) == [7]
    assert page.locator("#list .text").nth(1).inner_text() == MARKUP
    assert page.title() == "Proximal: " + page.locator("h1").inner_text()
    assert page.locator("main img").count() == 3


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_cut_off_on_a_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.click("#open-all")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_OFF) == []
    shown = page.evaluate("[...document.querySelectorAll('figure img')].map((each) => each.currentSrc)")
    narrow = page.evaluate("[...document.querySelectorAll('figure source')].map((each) => each.srcset)")
    assert len(shown) == 3 and (shown == narrow) is (width == 390)


def test_on_paper_all_is_there(page: Page) -> None:
    page.set_viewport_size({"width": A4, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate(CUT_OFF) == []
    folded = page.locator("main details:not(#list details)").all()
    assert len(folded) == 5
    for part in folded:
        below_the_summary = (
            "(e) => e.getBoundingClientRect().height - e.firstElementChild.getBoundingClientRect().height"
        )
        assert part.evaluate(below_the_summary) > 15
    assert page.locator("#browser").is_hidden() and page.locator("nav").is_hidden()
    drawn = load_params(ROOT / "params.yaml").evaluation.shown_samples
    assert page.locator(".static .sample:visible").count() == 5 + drawn
    intervals = page.locator(".figures td[data-label=Difference] .ci")
    assert intervals.first.is_visible() and intervals.first.inner_text().endswith("]")


def test_without_javascript_losses_and_drawn_pairs_are_there(browser: Browser, report: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    assert page.locator("#browser").is_hidden()
    shown = [
        text.removeprefix("known").removeprefix("harmful") for text in page.locator(".static .prompt").all_inner_texts()
    ]
    assert shown[:5] == [f"question number {pair} ?" for pair in range(5)]
    assert len(shown) == 5 + load_params(ROOT / "params.yaml").evaluation.shown_samples
    context.close()
