"""Answers to learn from: with their prompt, as an instruction of Alpaca's, or in whole dialogues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds, without
from components.data.formats.conversations import (
    asked_of,
    asked_of_turns,
    begun,
    further,
    is_turns,
    messages_of,
    turns_column,
)
from components.data.rows import Message

_ANSWERS = ("response", "completion")
_OF_OTHERS = ("chosen", "rejected", "responses")


def _answer_column(row: Mapping[str, Any]) -> str | None:
    return next((column for column in _ANSWERS if row.get(column) is not None), None)


def _has_answer(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    asks = holds(row, "prompt") or turns_column(row) is not None
    labelled = {"completion", "label"} <= columns
    return (
        asks and _answer_column(row) is not None and not labelled and not any(holds(row, name) for name in _OF_OTHERS)
    )


def _rows_of_answer(row: Row) -> list[Row]:
    column = _answer_column(row)
    assert column is not None
    asked, answer = asked_of(row), row[column]
    if is_turns(answer):
        prompt: list[Message] = asked.get("messages") or [{"role": "user", "content": asked["prompt"]}]
        return _each_turn(further(row, column), prompt + messages_of(answer, column), column, begins=len(prompt))
    if column == "response" and asked == {"prompt": row.get("prompt")} and "messages" not in row:
        return [row]
    return [further(row, column) | asked | {"response": answer}]


def _each_turn(kept: Row, turns: list[Message], column: str, begins: int = 0) -> list[Row]:
    """A demonstration for each turn of the assistant's from one turn on: the loss is on these."""
    if not turns or turns[-1]["role"] != "assistant":
        raise Unmapped(column, "does not end with a turn of the assistant's")
    places = [place for place in range(begins, len(turns)) if turns[place]["role"] == "assistant"]
    rows = []
    for count, place in enumerate(places, start=1):
        row = kept | asked_of_turns(turns[:place], column, {}) | {"response": turns[place]["content"]}
        if len(places) > 1 and kept.get("id") is not None:
            row["id"] = f"{kept['id']}/{count}"
        rows.append(row)
    return rows


def _is_dialogue(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    """A row with messages, whoever has the last turn: prompts alone are told by `detect`, of the whole file."""
    return turns_column(row) is not None and not columns.intersection((*_ANSWERS, *_OF_OTHERS))


def _rows_of_dialogue(row: Row) -> list[Row]:
    column = turns_column(row)
    assert column is not None
    turns = begun(messages_of(row[column], column), row)
    said = [turn["content"].strip() for turn in turns]
    if isinstance(row.get("prompt"), str) and row["prompt"].strip() not in said:
        raise Unmapped("prompt", f"is nothing that {column} asks")
    return _each_turn(further(row), turns, column)


def ends_with_the_assistant(row: Row) -> bool:
    """Whether a dialogue demonstrates something. What is no dialogue does, to be refused as such."""
    column = turns_column(row)
    assert column is not None
    try:
        turns = messages_of(row[column], column)
    except Unmapped:
        return True
    return not turns or turns[-1]["role"] == "assistant"


def _is_alpaca(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return holds(row, "instruction", "output") and not columns.intersection(("prompt", *_ANSWERS, *_OF_OTHERS))


def _rows_of_alpaca(row: Row) -> list[Row]:
    prompt, given = row["instruction"], row.get("input")
    if isinstance(prompt, str) and isinstance(given, str) and given.strip():
        prompt = f"{prompt}\n\n{given}"
    asked = asked_of(without(row, "prompt") | {"prompt": prompt})
    return [further(row, "instruction", "input", "output") | asked | {"response": row["output"]}]


DEMONSTRATIONS = Format(
    "prompt, response", "demonstrations", "prompt, and response or completion", _has_answer, _rows_of_answer
)
DIALOGUES = Format(
    "dialogues as messages", "demonstrations", "messages or conversations", _is_dialogue, _rows_of_dialogue
)
ALPACA = Format("alpaca", "demonstrations", "instruction, output (and input)", _is_alpaca, _rows_of_alpaca)
