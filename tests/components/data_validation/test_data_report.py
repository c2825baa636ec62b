from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.labels import AnnotatorRecord, LabelStatistics
from components.data_validation.page import Histogram, _annotators, page_of
from components.data_validation.report import flat_metrics, price_of_the_split, quarantine_lines, report_of
from components.data_validation.validate import validate

Limits = Callable[..., DataValidation]


def test_metrics_by_file(world: Any, limits: Limits) -> None:
    world.comparisons[0]["chosen"] = ""
    world.comparisons[2]["chosen"], world.comparisons[2]["rejected"] = (
        world.comparisons[2]["rejected"],
        world.comparisons[2]["chosen"],
    )
    raw = world.raw()
    report = report_of(raw, validate(raw, limits(), 1))
    comparisons = report["comparisons"]
    assert comparisons["rows"] == 40
    assert comparisons["kept"] == 39
    assert comparisons["rejected"] == 1
    assert comparisons["rejected_fraction"] == pytest.approx(1 / 40)
    # 19 pairs of labels are left, of which one disagrees
    assert comparisons["annotator_agreement"] == pytest.approx(18 / 19)
    assert comparisons["longer_wins"] == pytest.approx(19 / 39)
    # three words and five: four a response on average, in pairs of which all but one row are left
    assert comparisons["mean_words"] == pytest.approx(4.0)
    assert report["parts"]["prompts_validation"] == 10
    assert report["warnings"] == 1

    flat = flat_metrics(report)
    assert flat["comparisons/rows"] == 40
    assert flat["parts/prompts_test"] == 10
    assert not any(name.startswith("checks") for name in flat)
    json.dumps(report, allow_nan=False)


def test_figures_the_data_cannot_give_are_left_out(world: Any, limits: Limits) -> None:
    world.comparisons = world.comparisons[::2]
    world.drop("comparisons", "annotator")
    raw = world.raw()
    report = report_of(raw, validate(raw, limits(), 1))
    assert "annotator_agreement" not in report["comparisons"]
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert statuses["annotator_agreement"] == "not in the data"


def test_quarantine_holds_every_row_with_its_reasons(world: Any, limits: Limits) -> None:
    world.demonstrations[4]["response"] = "caf\ufffd\x00"
    raw = world.raw()
    lines = "".join(quarantine_lines(validate(raw, limits(), 1)))
    assert lines.isascii()
    assert json.loads(lines) == {
        "file": "demonstrations.jsonl",
        "row": 5,
        "reasons": ["response has an encoding fault"],
        "withheld": False,
        "content": world.demonstrations[4],
    }


class Page(HTMLParser):
    """Notes the tags, and that every one of them is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(world: Any, limits: DataValidation) -> str:
    raw = world.raw()
    validated = validate(raw, limits, 1)
    return page_of(raw, validated, report_of(raw, validated))


def test_the_page_is_whole_and_needs_nothing_from_outside(world: Any, limits: Limits) -> None:
    text = page(world, limits())
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.references and all(reference.startswith("#") for reference in parsed.references)
    assert "script" not in parsed.tags
    assert not re.search(r"url\(|@import|https?://", text)
    assert parsed.tags.count("svg") == 4
    assert page(world, limits()) == text


def test_text_of_the_data_is_escaped(world: Any, limits: Limits) -> None:
    world.demonstrations[4] |= {"prompt": "<script>alert(1)</script>", "response": ""}
    for row in world.comparisons:
        row["annotator"] = f"<b>{row['annotator']}</b>"
    text = page(world, limits())
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert '<td class="head data">&lt;b&gt;ada&lt;/b&gt;</td>' in text


def test_warnings_come_first(world: Any, limits: Limits) -> None:
    assert "no check found anything to look at" in page(world, limits())
    world.demonstrations[4]["response"] = ""
    text = page(world, limits())
    assert "1 check needs a look" in text
    statuses = re.findall(r'class="status \w+">([\w ]+)<', text)
    assert statuses[0] == "warning"
    assert set(statuses[1:]) == {"ok"}


def test_the_histogram_counts_every_text(world: Any, limits: Limits) -> None:
    """40 prompts of five words: one bar of full height, in the bin of five words."""
    bars = re.findall(r"<title>(.*?)</title></rect>", page(world, limits()))
    assert bars[:1] == ["5 words: 40"]
    assert bars[1:2] == ["3 words: 20"]  # demonstrations
    assert sorted(bars[2:]) == ["3 words: 20", "3 words: 20", "5 words: 20", "5 words: 20"]


def test_one_giant_text_does_not_squash_the_histogram(world: Any, limits: Limits) -> None:
    world.demonstrations = [
        world.demonstrations[i % 20] | {"id": f"d{i}", "response": f"say{i} this{i} now{i}"} for i in range(120)
    ]
    world.demonstrations[0]["response"] = "w " * 90
    bars = re.findall(r"<title>(.*?)</title></rect>", page(world, limits()))
    assert bars[1:3] == ["3 words: 119", "29 words and more: 1"]


def test_the_price_of_the_split_is_told_apart(world: Any, limits: Limits) -> None:
    world.drop("prompts", "split")
    world.comparisons[0]["chosen"] = ""
    raw = world.raw()
    validated = validate(raw, limits(), 3)
    report = report_of(raw, validated)
    withheld = sum(row.withheld and row.file == "comparisons" for row in validated.rejected)
    kept = len(validated.kept["comparisons"])
    assert withheld and kept + withheld + 1 == 40
    comparisons = report["comparisons"]
    assert [comparisons[name] for name in ("kept_fraction", "withheld_fraction", "rejected_fraction")] == pytest.approx(
        [kept / 40, withheld / 40, 1 / 40]
    )
    *_, told, parts = price_of_the_split(report)
    assert f"comparisons: {kept} of 40 rows kept ({kept / 40:.1%}), {withheld} withheld for evaluation" in told
    assert "1 faulty and quarantined (2.5%)" in told
    trained = len(validated.parts["comparisons_reward_model"])
    assert f"the reward model trains on {trained} ({trained / 40:.1%})" in parts
    assert f"{100 * withheld / 40:.1f} %" in page_of(raw, validated, report)


def test_histograms_have_round_ticks() -> None:
    chart = Histogram("prompts: prompt", width=2, counts=[0] * 29 + [7], tallest=234)
    assert (chart.ticks, chart.words) == ([100, 200], [10, 20, 30, 40, 50, 60])
    assert Histogram("few", width=1, counts=[1], tallest=1).ticks == [1]


def test_rows_of_the_quarantine_show_their_texts_and_their_other_fields(world: Any, limits: Limits) -> None:
    world.demonstrations[4] |= {"response": "caf\ufffd", "prompt": 'say \u200b "hello"'}
    text = page(world, limits())
    assert '<td class="data" data-label="Response">caf\\ufffd</td>' in text
    assert '<td class="data" data-label="Prompt">say \\u200b &#34;hello&#34;</td>' in text
    assert re.search(r'<span class="note">id</span> \w+', text)


def test_an_annotator_is_flagged_only_beyond_chance() -> None:
    statistics = LabelStatistics(0, 0, {}, {
        "low": AnnotatorRecord(labels=200, compared=200, agreeing=100),  # Wilson: 0.43 to 0.57
        "near": AnnotatorRecord(labels=40, compared=40, agreeing=28),  # 0.55 to 0.82
        "high": AnnotatorRecord(labels=400, compared=400, agreeing=340),  # 0.81 to 0.88
        "alone": AnnotatorRecord(labels=1, compared=1, agreeing=1),
        "unseen": AnnotatorRecord(labels=3, compared=0, agreeing=0),
    }, [], [])  # fmt: skip
    assert statistics.mean_agreement == 469 / 641  # 0.73
    assert [(name, said) for name, _, said in _annotators(statistics)] == [
        ("low", "below the others"), ("near", "within chance"), ("high", "above the others"),
        ("alone", "too few to say"), ("unseen", "too few to say"),
    ]  # fmt: skip
