"""The stage's outputs from hand-made records; measuring real policies is the end-to-end test's part."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluation_by_hand import SCORER, Records, written
from records_by_hand import RUBRIC, all_changed, without

from components.artifacts import read_json, read_jsonl, write_json
from components.config import Params
from components.digests import digest, digest_of_values
from components.errors import ArtifactError
from components.measuring.records import read_records, write_records
from components.place import Place
from components.stages import task_of


class Page(HTMLParser):
    """Collects what a page refers to and what it says."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def page() -> Page:
    return Page((Place().evaluation / "report.html").read_text(encoding="utf-8"))


def test_writes_everything_and_the_report_stands_alone(
    stages: Path, params: Params, sft: Records, candidate: Records
) -> None:
    comparison = written(params, sft, candidate)

    names = "records.jsonl metrics.json by_kind.json summary.json samples.json plots report.html"
    assert {path.name for path in Place().evaluation.iterdir()} == set(names.split())
    assert read_json(Place().evaluation / "metrics.json") == comparison
    assert set(read_json(Place().evaluation / "by_kind.json")) == {"known", "harmful"}
    assert len(read_json(Place().evaluation / "samples.json")) == params.evaluation.shown_samples
    records = read_jsonl(Place().evaluation / "records.jsonl")
    assert [record["policy"] for record in records] == ["sft"] * 8 + ["candidate"] * 8
    assert records[8] == {"policy": "candidate", **candidate[0].columns()}
    iterations = [row["iteration"] for row in read_json(Place().evaluation / "plots" / "training.json")]
    assert iterations == [int(cycle) for cycle in params.cycles]
    said = " ".join(page().text.split())
    assert "1 check that the run made of itself, all of them passed" in said
    assert "typical <log-ratio>100.1 nats a token0.01—0.03" in said

    html = (Place().evaluation / "report.html").read_text(encoding="utf-8")
    links = Page(html).links
    assert sum(link.startswith("data:image/png;base64,") for link in links) == 6  # each for a wide page and a phone
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"https?://|url\(|@import", html)
    assert str(stages) not in html

    text = " ".join(page().text.split())
    assert "Gold rose by 0.300 [0.300, 0.300]" in text
    assert "Shares (helpful, harmless, honest, ended, win rate) are drawn on one scale" in text
    assert "+0.300" in text
    assert "100.0 % [51.0, 100.0] of pairs" in text  # Wilson: 4 of 4
    assert "cycle 2 of 3" in text and "2 layers, 0.12 M parameters" in text  # 600 * 200 + 7
    assert "Accuracy, held-out prompts0.7120.712" in text  # the reward model's and the judge's
    assert "Accuracy, held-out pairs of seen prompts0.912" in text and "Beware" not in text
    assert f"learning_rate{params.ppo.learning_rate}" in text
    assert "You should swap the fuse." in text
    assert "registered_model" not in text  # promotion comes later and has no part in this page


@pytest.mark.usefixtures("stages")
def test_two_runs_give_the_same_bytes(params: Params, sft: Records, candidate: Records) -> None:
    written(params, sft, candidate)
    first = digest(Place().evaluation)
    written(params, sft, candidate)
    assert digest(Place().evaluation) == first


@pytest.mark.usefixtures("stages")
def test_the_page_names_by_content_what_it_was_made_of(params: Params, sft: Records, candidate: Records) -> None:
    written(params, sft, candidate)
    text = page().text
    assert f"Held-out prompts{digest(Place().clean / 'prompts_test.jsonl')}" in text
    assert f"SFT policy{digest(Place().sft / 'policy')}" in text
    assert f"Candidate policy{digest(Place().selection / 'policy')}" in text
    assert f"Params{digest_of_values(params.values(without=['promotion', 'orchestration']))}" in text


@pytest.mark.usefixtures("stages")
def test_text_from_models_and_data_is_never_markup(params: Params, sft: Records, candidate: Records) -> None:
    response = "</script><script>alert(1)</script><img src=x><!--"
    markup = {"response": response, "prompt": '<b>bold</b> & "quoted"'}

    written(params, *(all_changed(records, lambda record: markup) for records in (sft, candidate)))

    assert page().tags.count("script") == 3 and page().tags.count("img") == 3  # none but our own
    assert response in page().text
    html = (Place().evaluation / "report.html").read_text(encoding="utf-8")
    (rows,) = re.findall(r'id="pair-rows">(.*?)</script>', html)
    assert {row[2] for row in json.loads(rows)} == {response}
    assert {row[1] for row in json.loads(rows)} == {markup["prompt"]}


def take_away(columns: tuple[str, ...], *sides: Records) -> list[Records]:
    """From the records and from what selection says of the cycles."""
    cycles = read_json(Place().selection / "cycles.json")
    write_json(
        Place().selection / "cycles.json", [{name: row[name] for name in row if name not in columns} for row in cycles]
    )
    for cycle in ("1", "2", "3"):
        path = Place().alignment / cycle / "validation.jsonl"
        write_records(path, {policy: without(rows, *columns) for policy, rows in read_records(path).items()})
    return [without(records, *columns) for records in sides]


@pytest.mark.usefixtures("stages")
def test_without_rubric_and_kinds_the_report_is_whole(params: Params, sft: Records, candidate: Records) -> None:
    sides = (all_changed(records, lambda record: {"kind": None}) for records in (sft, candidate))

    written(params, *take_away(tuple(RUBRIC), *sides))

    assert "The judge score rose by 1.000" in page().text
    assert "By kind of prompt" not in page().text


@pytest.mark.usefixtures("stages")
def test_with_a_rubric_that_has_no_parts_the_report_is_whole(params: Params, sft: Records, candidate: Records) -> None:
    written(params, *take_away(("helpful", "harmless", "honest"), sft, candidate))

    assert "Gold rose by" in page().text
    assert not any(name in page().text.lower() for name in ("helpful", "harmless"))


@pytest.mark.usefixtures("stages")
def test_a_missing_input_leaves_nothing_half_written(params: Params, sft: Records, candidate: Records) -> None:
    (Place().judge / "calibration.json").unlink()

    with pytest.raises(ArtifactError, match="missing") as error:
        written(params, sft, candidate)

    assert error.value.where == "artifacts/judge/calibration.json"
    assert not list(Place().evaluation.parent.glob("*evaluation*"))


def test_every_cycle_is_an_input(params: Params) -> None:
    curves = [path for path in task_of("evaluation", params, Place()).paths if path.name == "curve.json"]
    assert curves == [Place().alignment / cycle / "curve.json" for cycle in params.cycles]


@pytest.mark.usefixtures("stages")
def test_a_weak_scorer_is_told_at_the_head_of_the_report(params: Params, sft: Records, candidate: Records) -> None:
    write_json(Place().judge / "metrics.json", SCORER | {"longer_wins_accuracy_heldout": 0.8})
    written(params, sft, candidate)
    head = " ".join(page().text.partition("SFT against candidate")[0].split())
    assert 'Beware: the judge is right on 71.2% of 200 comparisons of unseen prompts, less than "the longer' in head
    assert "reward model is right" not in head
