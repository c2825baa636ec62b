"""`proximal label` in a real browser: keys and mouse, two annotators, a reload, kill -9, the token; then `data add`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from components.config import load_params
from components.errors import ConfigError
from components.interface.importing import checked, read_sources
from components.interface.label.pairs import Answer, Policy, Queue, in_order, pair_of
from components.processes import free_port
from flows.cli import commands
from tests.served_pages import PATIENCE_MS, Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

ROOT = Path(__file__).parents[2]
SFT, BEST = Policy("artifacts/sft/policy", "11111111aa"), Policy("policy@champion", "22222222bb")
MARKUP = "<b>bold</b> ![x](http://127.0.0.1:9/x.png) $x^2$ *star*"
# The scorers disagree on pair 3 alone, and on pair 1 they agree most.
GAPS = {1: (3.0, 2.0), 2: (0.5, 0.5), 3: (1.0, -1.0)}


def queue() -> Queue:
    pairs = [
        pair_of(f"Question {n}?", None, Answer(SFT, f"old {n} {MARKUP}", 0.0, 0.0), Answer(BEST, f"new {n}", *gaps))
        for n, gaps in GAPS.items()
    ]
    return Queue((SFT, BEST), 3, in_order(pairs))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    queue().write(tmp_path / "labels" / "queue.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROXIMAL_LABEL_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def serve(project: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*more: str) -> Served:
        started.append(Served(project / "log", project, "label", *more))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.log.close()


def kept() -> list[dict[str, Any]]:
    path = Path("labels/labels.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def judged(page: Page, annotator: str, count: int) -> None:
    """Wait until the page says so; then the label is on the disk."""
    page.get_by_text(f"{annotator}: {count} of 3 pairs judged").wait_for()


def ready(page: Page, question: int) -> None:
    page.get_by_text(f"Question {question}?").wait_for()


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens an address in a tab of a browser that has been here before: scripts are loaded once."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)

    def opened(url: str) -> Page:
        page = context.new_page()
        page.goto(url, wait_until="commit")
        return page

    yield opened
    context.close()


def answer_shown_as_a(page: Page) -> str:
    return page.locator(".st-key-answer-A").inner_text()


def test_people_judge_and_nothing_is_lost_or_doubled(
    tabs: Callable[[str], Page], project: Path, serve: Callable[..., Served]
) -> None:
    served = serve("--token", "right")
    assert b"right" not in Path(f"/proc/{served.process.pid}/cmdline").read_bytes()
    page = tabs(served.url)
    token = page.get_by_label("Token", exact=True)
    token.fill("wrong")
    token.press("Enter")
    page.get_by_text("That is another token.").wait_for()
    assert page.get_by_label("Your name").count() == page.get_by_text("Question").count() == 0
    token.fill("right")
    token.press("Enter")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_role("button", name="Begin").click()
    judged(page, "Ann", 0)
    ready(page, 3)  # on which the scorers disagree
    assert page.get_by_text(f"old 3 {MARKUP}", exact=True).count() == 1  # as it is, not as Markdown
    assert page.get_by_text("champion").count() == 0  # nobody knows whose answer it is

    page.get_by_label("Why (if you like)").press_sequentially("0 is 1 of 2 reasons")  # its digits judge nothing
    page.get_by_role("button", name="A is better").click()
    judged(page, "Ann", 1)
    assert [(row["label"], row["why"]) for row in kept()] == [("A", "0 is 1 of 2 reasons")]
    served.kill()  # between two labels
    assert len(kept()) == 1
    with Path("labels/labels.jsonl").open("a") as file:
        file.write('{"pair": "cut off while it was wri')

    served = serve()
    page = tabs(f"{served.url}/?annotator=Ann")
    judged(page, "Ann", 1)
    ready(page, 2)
    stale = tabs(f"{served.url}/?annotator=Ann")
    ready(stale, 2)
    with_keys_late(page, lambda: page.reload(wait_until="commit"), "Ann: 1 of 3")
    ready(page, 2)
    for _ in range(3):  # one that is held down repeats itself
        page.keyboard.down("2")
    page.keyboard.up("2")
    judged(page, "Ann", 2)
    ready(page, 1)
    stale.keyboard.press("1")  # of the pair that the other window has judged since
    stale.get_by_text("You have judged that pair before").wait_for()
    why = page.get_by_label("Why (if you like)")
    why.fill("never mind")
    why.press("Enter")  # which leaves the field: keys are keys again
    page.keyboard.press("s")
    page.get_by_text("That was the last pair").wait_for()
    assert [(row["label"], row.get("why")) for row in kept()][1:] == [("B", None), ("skip", "never mind")]

    # A second annotator, who says the same of pair 3, and of pair 2 "tie".
    other = tabs(f"{served.url}/?annotator=Bob")
    judged(other, "Bob", 0)
    ready(other, 3)
    first = kept()[0]["shown"][0]["text"]  # what Ann preferred
    other.keyboard.press("1" if first in answer_shown_as_a(other) else "2")
    judged(other, "Bob", 1)
    ready(other, 2)
    other.keyboard.press("0")
    judged(other, "Bob", 2)
    other.get_by_text("Agreement: 50% of 2 times that two annotators judged one pair").wait_for()

    rows = kept()
    assert [(row["annotator"], row["label"]) for row in rows][:3] == [("Ann", "A"), ("Ann", "B"), ("Ann", "skip")]
    assert len({(row["pair"], row["annotator"]) for row in rows}) == len(rows) == 5
    assert all({each["policy"]["digest"] for each in row["shown"]} == {"11111111aa", "22222222bb"} for row in rows)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["time"]) for row in rows)

    # What `proximal data add labels/labels.jsonl` reads of it: three comparisons, and a tie and a skip that are none.
    (found,) = checked(read_sources(["labels/labels.jsonl"], None, []), load_params(ROOT / "params.yaml"), {})
    assert (found.role, dict(found.faults)) == ("comparisons", {})
    assert dict(found.source.unused) == {"neither answer was preferred": 2}
    assert [(row["annotator"], row["prompt"]) for row in found.rows] == [
        ("Ann", "Question 3?"),
        ("Ann", "Question 2?"),
        ("Bob", "Question 3?"),
    ]
    assert found.rows[0]["chosen"] == found.rows[2]["chosen"] == first


def with_keys_late(page: Page, load: Callable[[], object], text: str) -> None:
    """Nothing can be judged before keys work: the script that listens to them, and the buttons, come late."""
    held: list[Route] = []
    page.route(re.compile(r"/(Html|Button)\.[^/]*js$"), lambda route: held.append(route))
    load()
    page.get_by_text(text).wait_for()
    while len(held) < 2:
        page.wait_for_timeout(50)
    assert page.get_by_text("Question").count() == 0
    for route in held:
        route.continue_()
    page.unroute_all()


@pytest.mark.parametrize(
    "arguments, what",
    [
        (("--host", "192.0.2.1"), "others can reach this address"),
        (("--host", "0.0.0.0", "--token", "t"), "every address"),
        (("--host", "192.0.2.1", "--token", "t"), "nothing can be served there"),
        (("--prompts", "4"), "the queue there was made otherwise"),
    ],
)
def test_what_cannot_be_served_is_refused(project: Path, arguments: tuple[str, ...], what: str) -> None:
    done = CliRunner().invoke(commands, ["label", "--port", str(free_port()), *arguments])
    assert isinstance(done.exception, ConfigError)
    assert what in str(done.exception)


def test_a_port_that_is_taken_is_refused(project: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        done = CliRunner().invoke(commands, ["label", "--port", str(listener.getsockname()[1])])
    assert isinstance(done.exception, ConfigError)
    assert "nothing can be served there" in str(done.exception)
