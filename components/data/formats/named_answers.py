"""The prompt and the answers in a record whose makers chose the names of its parts: `prompt`, `answer1`, `answer2`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Row, Unmapped, holds, without
from components.data.formats.conversations import ASKED, asked_of, turns_column

_ANSWERS = ("answer", "response", "completion", "generation", "text", "output", "option", "candidate", "reply")
_ENDINGS = (("1", "2"), ("a", "b"), ("0", "1"))
_JOINTS = ("", "_", "-", " ")
_PROMPTS = ("instruction", "question", "query")
_TIES = ("tie", "equal", "same", "both", "neither", "draw")


def two_answers(parts: Mapping[str, Any], column: str) -> tuple[str, str]:
    """The names of the two answers, the first of them first.

    Raises:
        Unmapped: none are named as answers usually are.
    """
    by_name = {name.lower(): name for name, value in parts.items() if isinstance(name, str) and value is not None}
    for answer in _ANSWERS:
        for first, second in _ENDINGS:
            for joint in _JOINTS:
                one, two = (by_name.get(f"{answer}{joint}{ending}") for ending in (first, second))
                if one is not None and two is not None:
                    return one, two
    known = ", ".join(f"{name}1 and {name}2" for name in _ANSWERS[:3])
    raise Unmapped(column, f"names no two answers, such as {known}")


def asked_among(parts: Mapping[str, Any], answers: tuple[str, ...], column: str) -> tuple[Row, Row]:
    """What is asked, as the columns prompt and messages; and the parts that are neither that nor an answer.

    Raises:
        Unmapped: there is no prompt, or `asked_of` cannot read it.
    """
    row = dict(parts)
    if not holds(row, "prompt") and turns_column(row) is None:
        name = next((name for name in _PROMPTS if holds(row, name)), None)
        if name is None:
            raise Unmapped(column, f"has no prompt: none of {', '.join((*ASKED, *_PROMPTS))}")
        row["prompt"] = row.pop(name)
    return asked_of(row), without(row, *ASKED, *answers)


def preferred(said: str, names: tuple[str, str]) -> str:
    """Which of two answers a choice in words prefers: "A", the first, "B", or "tie"; "" where it tells neither."""
    plain = _plain(said)
    if plain in _TIES:
        return "tie"
    for side, name, place, hand in zip("AB", names, ("first", "second"), ("left", "right"), strict=True):
        if plain in (_plain(name), _plain(name)[-1], side.lower(), place, hand):
            return side
    return ""


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
