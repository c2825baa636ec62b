"""`proximal chat --page` in a real browser: two policies stream side by side, and say what they say at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from chats import tokenizer_of
from click.testing import CliRunner

from components.engines.answering import Answerer
from components.errors import ArtifactError, ConfigError, DataError
from components.interface.asking import Asking
from components.interface.chat import Streaming
from components.interface.together import answer_together
from components.models.loading import save_policy
from components.models.text import Codec, TextFormat
from components.processes import free_port
from flows.cli import commands
from tests.served_pages import ROOT, Served, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKENS = 150
MARKUP = "<b>bold</b> ![x](http://127.0.0.1:9/x.png) *star*"
ASKING = Asking(temperature=0.5, seed=1, max_response_tokens=TOKENS)
PLACES = "[data-testid=stColumn] [data-testid=stText]"  # of answers
# What stands in the two places at any time, one entry a change.
WATCH = f"""() => {{
  window.seen = [];
  new MutationObserver(() => window.seen.push(
    [...document.querySelectorAll('{PLACES}')].map(text => text.textContent.length)
  )).observe(document.body, {{subtree: true, childList: true, characterData: true}});
}}"""


def stored(folder: Path, prompt_template: str | None, seed: int, positions: int = 1000) -> str:
    """A policy with a chat template, or a text around {prompt}, that speaks long."""
    tokenizer = tokenizer_of("phi")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 2}
    shape = hf.LlamaConfig(
        vocab_size=len(tokenizer), initializer_range=0.3, max_position_embeddings=positions, pad_token_id=0, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_policy(hf.LlamaForCausalLM(shape), Codec(tokenizer, TextFormat(prompt_template, 800, 20)), folder)
    return str(folder)


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Reads the conversation so far."""
    return stored(tmp_path_factory.mktemp("policies") / "talking", None, seed=1)


@pytest.fixture(scope="module")
def forgetting(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Reads every message alone."""
    return stored(tmp_path_factory.mktemp("policies") / "forgetting", "Human: {prompt}\nAssistant:", seed=2)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str, **more: str) -> Served:
        started.append(Served(tmp_path / "log", ROOT, "chat", "--page", *arguments, more=more))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.log.close()


def expected(policy: str, asked: Any, tokens: int = TOKENS) -> str:
    [answer] = Answerer(Path(policy)).answer([asked], temperature=0.5, seed=1, max_response_tokens=tokens)
    return answer


def say(page: Page, text: str) -> None:
    page.get_by_placeholder("Say something").fill(text)
    page.get_by_placeholder("Say something").press("Enter")


def answers(page: Page, count: int) -> list[str]:
    """What stands in the places once the page takes the next message."""
    texts = page.locator(PLACES)
    texts.nth(count - 1).wait_for()  # it answers, and takes none meanwhile; before that, it still takes one
    page.locator("[data-testid=stChatInputTextArea]:enabled").wait_for()
    page.get_by_role("button", name="New conversation").wait_for()
    assert texts.count() == count
    return texts.all_text_contents()


def test_two_policies_stream_side_by_side_what_they_say_at_the_terminal(
    browser: Browser, serve: Callable[..., Served], talking: str, forgetting: str
) -> None:
    settings = ("--temperature", "0.5", "--seed", "1", "--max-tokens", str(TOKENS))
    page = opened(browser, serve(talking, "--compare", forgetting, *settings).url)
    page.get_by_role("heading", name=talking).wait_for()
    page.get_by_role("heading", name=forgetting).wait_for()
    page.get_by_text(f"Every answer: temperature 0.5, seed 1, at most {TOKENS} tokens").wait_for()
    assert page.get_by_text("reads the whole conversation", exact=True).count() == 1
    assert page.get_by_text("reads every message alone", exact=True).count() == 1

    page.evaluate(WATCH)
    say(page, MARKUP)
    first = answers(page, 2)
    assert first == [expected(talking, MARKUP), expected(forgetting, MARKUP)]
    assert page.get_by_text(MARKUP, exact=True).count() == 1  # as it is, not as Markdown
    whole = [len(text) for text in first]
    seen = [lengths for lengths in page.evaluate("window.seen") if len(lengths) == 2]
    assert any(0 < lengths[0] < whole[0] and 0 < lengths[1] < whole[1] for lengths in seen), (whole, seen)

    left, right = (page.locator(PLACES).nth(number) for number in (0, 1))
    assert left.bounding_box()["x"] < right.bounding_box()["x"]  # type: ignore[index]
    assert left.bounding_box()["y"] == right.bounding_box()["y"]  # type: ignore[index]

    say(page, "And then?")
    again = answers(page, 4)
    turns: list[Any] = [
        {"role": "user", "content": MARKUP},
        {"role": "assistant", "content": first[0]},
        {"role": "user", "content": "And then?"},
    ]
    assert again == [*first, expected(talking, turns), expected(forgetting, "And then?")]

    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("And then?").wait_for(state="detached")
    say(page, "And then?")
    assert answers(page, 2) == [expected(talking, "And then?"), again[3]] != again[2:]


def test_a_message_that_cannot_be_answered_says_why_and_the_next_one_is(
    browser: Browser, serve: Callable[..., Served], tmp_path: Path
) -> None:
    short = stored(tmp_path / "short", None, seed=1, positions=100)
    page = opened(browser, serve(short, "--max-tokens", "60", "--temperature", "0.5", "--seed", "1").url)
    say(page, "long " * 60)
    page.get_by_text("That message was not answered.").wait_for()
    page.get_by_text("prompt and response are longer together than the policy can read").wait_for()
    say(page, "short")
    assert answers(page, 1) == [expected(short, "short", 60)]


def test_a_token_opens_the_page_and_another_does_not(
    browser: Browser, serve: Callable[..., Served], talking: str
) -> None:
    page = opened(browser, serve(talking, PROXIMAL_CHAT_TOKEN="right").url)
    field = page.get_by_label("Token", exact=True)
    field.fill("wrong")
    field.press("Enter")
    page.get_by_text("That is another token.").wait_for()
    assert page.get_by_placeholder("Say something").count() == 0
    field.fill("right")
    field.press("Enter")
    page.get_by_placeholder("Say something").wait_for()


@pytest.mark.parametrize(
    "arguments, kind, what",
    [
        (("--page", "--host", "192.0.2.1"), ConfigError, "others can reach this address"),
        (("--page", "nowhere"), ArtifactError, "this is no policy"),
        (("--page", "{talking}", "--compare", "nobody@champion"), ArtifactError, "nobody"),
    ],
)
def test_what_cannot_be_served_is_refused(
    arguments: tuple[str, ...], kind: type[Exception], what: str, talking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PROXIMAL_CHAT_TOKEN", raising=False)
    words = [word.format(talking=talking) for word in arguments]
    done = CliRunner().invoke(commands, ["chat", "--port", str(free_port()), *words])
    assert isinstance(done.exception, kind)
    assert what in str(done.exception)


@pytest.mark.parametrize("option", ["--host", "--port", "--token"])
def test_what_only_a_page_takes_is_refused_at_the_terminal(option: str) -> None:
    done = CliRunner().invoke(commands, ["chat", option, "1"])
    assert done.exit_code == 2
    assert f"{option} is of a page: add --page" in done.output


def test_together_they_give_the_answers_that_each_gives_alone(talking: str, forgetting: str) -> None:
    policies, heard = [Streaming(Path(talking)), Streaming(Path(forgetting))], ["", ""]

    def tell(number: int, part: str) -> None:
        heard[number] += part

    given = answer_together(policies, ["hello", "well"], ASKING, tell)
    assert given == heard == [expected(talking, "hello"), expected(forgetting, "well")]
    # One policy that stands on both sides answers one after the other.
    same = answer_together([policies[0]] * 2, ["hello", "hello"], ASKING, lambda number, part: None)
    assert same == [given[0]] * 2


def test_where_nobody_reads_on_or_one_cannot_answer_all_end(talking: str, tmp_path: Path) -> None:
    policy = Streaming(Path(talking))
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    policy._policy.register_forward_pre_hook(count)

    def leave(number: int, part: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_together([policy], ["hello"], ASKING, leave)
    assert 0 < passes < TOKENS / 2
    short = Streaming(Path(stored(tmp_path / "short", None, seed=1, positions=100)))
    passes = 0
    with pytest.raises(DataError, match="longer together than the policy can read"):
        answer_together([short, policy], ["long " * 60, "hello"], ASKING, lambda number, part: None)
    assert passes < TOKENS
    assert policy.stream("hello", ASKING, lambda part: None) == expected(talking, "hello")
