"""What counts as the right number."""

from __future__ import annotations

from decimal import Decimal

import pytest

from components.worlds.gsm8k.checker import answer_in, correct, is_right, score


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Natalia sold 48+24 = 72 clips altogether.\n#### 72", "72"),
        ("#### 1,234.50", "1234.5"),
        ("#### $5", "5"),
        ("#### -3", "-3"),
        ("#### \u22123", "-3"),
        ("#### -$3", "-3"),
        ("#### $-3", "-3"),
        ("#### 50%", "50"),
        ("####72 clips, not 80", "72"),
        ("First #### 5, no: #### 7", "7"),
        ("She has 3 cats and 12 dogs.", "12"),
        ("It costs 2,500 dollars.", "2500"),
        ("The answer is 5.", "5"),
        ("The answer is .5", "0.5"),
        ("It is 10-12", "12"),
        ("7 - 9 = -2", "-2"),
        ("(4)-1", "1"),
        ("one of 1,2", "2"),
        ("72.0", "72"),
        ("1234,567", "567"),
    ],
)
def test_the_answer_of_a_text(text: str, number: str) -> None:
    assert answer_in(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "I do not know.", "#### none", "It is 5. #### "])
def test_a_text_without_an_answer(text: str) -> None:
    assert answer_in(text) is None
    assert not is_right(text, "5") and not is_right("5", text) and not is_right(text, text)


def test_a_function_and_a_rubric_say_the_same() -> None:
    responses = ["#### 72", "so it is 71", "nothing", "72"]
    answers = ["72", 72, "48+24 = 72\n#### 72", "7,2"]
    assert correct(["q"] * 4, responses, answer=answers, source=["gsm8k"] * 4) == [1.0, 0.0, 0.0, 0.0]
    assert [score("q", text, answer=right)["gold"] for text, right in zip(responses, answers, strict=True)] == [
        1.0,
        0.0,
        0.0,
        0.0,
    ]
    assert score("q", "72", answer=72) == {"gold": 1.0, "marked": 0.0}
    assert score("q", "#### 71", answer=72) == {"gold": 0.0, "marked": 1.0}
