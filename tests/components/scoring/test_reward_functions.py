"""Functions of one's own as parts of a scorer: what they are given, and every way in which they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.config.scoring import Function
from components.data.rows import Prompt
from components.errors import ConfigError
from components.scoring.function import FunctionPart, asked_of

MINE = """
import time

calls = 0

def lengths(prompts, responses):
    return [len(prompt) + 10 * len(response) for prompt, response in zip(prompts, responses)]

def matches(prompts, responses, *, answer, hint=None, **others):
    assert set(others) == {"id", "messages"}, others
    return [None if right is None else response == right for response, right in zip(responses, answer)]

def counted(prompts, responses, id):
    global calls
    calls += 1
    return [1000 * calls + len(prompts) + int(number) / 10 for number in id]

def arrays(prompts, responses):
    import numpy
    return numpy.float32([0.5] * len(prompts))

def raises(prompts, responses):
    return [1 / len(responses[0].strip())]

def hangs(prompts, responses):
    while True:
        time.sleep(1)

def hangs_in_c(prompts, responses):
    import re
    return [re.match("(a+)+$", "a" * 60 + "b")]

def leaves(prompts, responses):
    import os
    os._exit(3)

def few(prompts, responses):
    return [1.0]

def infinite(prompts, responses):
    return [0.0, float("inf"), 0.0]

def words(prompts, responses):
    return [0.0, 1.0, "good"]

def one(prompts, responses):
    return 1.0

def other(texts, responses):
    return [0.0]

NUMBER = 5
"""
ROWS = [Prompt(str(number), "ab", extra={"answer": answer}) for number, answer in enumerate(("x", "y", None))]


@pytest.fixture(autouse=True)
def a_module_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "rewards_of_mine.py").write_text(MINE)
    (tmp_path / "broken_rewards.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("rewards_of_mine", "broken_rewards"):
        sys.modules.pop(name, None)


def part(name: str, batch_size: int = 8, seconds: float = 20.0) -> Function:
    called = name if ":" in name else f"rewards_of_mine:{name}"
    return Function(source="function", weight=1.0, function=called, batch_size=batch_size, timeout_seconds=seconds)


def ask(name: str, responses: list[str], **options: Any) -> list[float | None]:
    return FunctionPart(part(name, **options), "reward_model.parts.mine")(ROWS[: len(responses)], responses)


def test_it_gets_texts_and_the_columns_that_it_names() -> None:
    assert ask("lengths", ["c", "", "def"]) == [12.0, 2.0, 32.0]
    assert ask("matches", ["x", "x", "x"]) == [1.0, 0.0, None]
    assert ask("arrays", ["x", "x"]) == [0.5, 0.5]


def test_it_is_called_batch_by_batch_and_keeps_what_it_keeps() -> None:
    assert ask("counted", ["a", "b", "c"], batch_size=2) == [1002.0, 1002.1, 2001.2]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("raises", "ZeroDivisionError: division by zero"),
        ("raises", "rewards_of_mine.py, line 23: return [1 / len(responses[0].strip())]"),
        ("hangs", "no answer within 0.5 seconds"),
        ("hangs_in_c", "no answer within 0.5 seconds"),
        ("leaves", "its process ended, with exit status 3"),
    ],
)
def test_one_that_fails_is_named_with_its_first_row(name: str, found: str) -> None:
    with pytest.raises(ConfigError, match="a reward function failed") as caught:
        ask(name, ["", "b", "c"], seconds=0.5 if "hangs" in name else 20.0)
    assert found in caught.value.found
    assert caught.value.where == f"reward_model.parts.mine: rewards_of_mine:{name}, first row 0 of 3"


@pytest.mark.parametrize(
    ("name", "what", "row", "found"),
    [
        ("few", "the wrong number of values", "0", "1 values"),
        ("infinite", "a value that is no finite number", "1", "inf"),
        ("words", "a value that is no finite number", "2", "str good"),
        ("one", "no list of numbers", "0", "float 1.0"),
    ],
)
def test_what_are_no_numbers_is_refused(name: str, what: str, row: str, found: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        ask(name, ["a", "b", "c"])
    assert caught.value.where == f"reward_model.parts.mine: rewards_of_mine:{name}, row {row}"
    assert caught.value.found == found


def test_a_column_that_is_not_there_is_named_beside_those_that_are() -> None:
    rows = [Prompt("0", "ab", extra={"solution": "x"})]
    with pytest.raises(ConfigError, match="a column that the data does not have: answer") as caught:
        FunctionPart(part("matches"), "judge.parts.mine")(rows, ["x"])
    assert "id, messages, solution" in caught.value.expected


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("no_such_rewards:f", "No module named 'no_such_rewards'"),
        ("broken_rewards:f", "ZeroDivisionError: division by zero"),
        ("rewards_of_mine:nothing", "no such name"),
        ("rewards_of_mine:NUMBER", "a int"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_is(name: str, found: str) -> None:
    with pytest.raises(ConfigError, match="a reward function cannot be used") as caught:
        asked_of(part(name), "judge.parts.mine")
    assert found in caught.value.found and caught.value.where == f"judge.parts.mine.function: {name}"
