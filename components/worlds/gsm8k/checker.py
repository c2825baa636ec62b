"""Whether a response ends in the right number: as a rubric for `data.rubric`, and as a reward function.

GSM8K's solutions end in "#### 72". A response's answer is the number behind its last "####", and without such a mark
the last number in it. What a number means is compared, not how it is written: 1,234.50 is 1234.5, "$5" is 5, and "50%"
is 50. The column `answer` is a number, a text with one, or a whole solution.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

MARK = "####"
PARTS = {"marked": "share of responses that state their answer behind ####"}

# A minus is a sign where no digit, letter or closing bracket stands before it; thousands are set apart by threes.
_NUMBER = re.compile(r"(?:(?<![\w.)\]])[-\u2212])?[$€£]?(?:(?<=[$€£])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?")


def correct(prompts: Sequence[str], responses: Sequence[str], *, answer: Sequence[object], **_: object) -> list[float]:
    """1.0 for every response whose answer is the row's, else 0.0: a reward function."""
    return [float(is_right(response, right)) for response, right in zip(responses, answer, strict=True)]


def score(prompt: str, response: str, *, answer: object) -> dict[str, float]:
    """The same as a rubric."""
    return {"gold": float(is_right(response, answer)), "marked": float(MARK in response)}


def is_right(response: str, answer: object) -> bool:
    """Whether a response's answer is this one."""
    found, right = answer_in(response), answer_in(str(answer))
    return found is not None and found == right


def answer_in(text: str) -> Decimal | None:
    """The number that a text gives as its answer; None if it gives none."""
    _, mark, behind = text.rpartition(MARK)
    numbers = _numbers(behind)
    if not numbers:
        return None
    return numbers[0] if mark else numbers[-1]


def _numbers(text: str) -> list[Decimal]:
    """All numbers in a text, in order."""
    found = (re.sub(r"[$€£,]", "", match).replace("\u2212", "-") for match in _NUMBER.findall(text))
    return [Decimal(number) for number in found if re.search(r"\d", number)]
