"""Two dialogues that end in the answers, as messages: with the prompt apart, or in both of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds
from components.data.formats.conversations import asked_of, asked_of_turns, begun, further, is_turns, messages_of
from components.data.rows import Message


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return holds(row, "chosen", "rejected") and is_turns(row["chosen"]) and is_turns(row["rejected"])


def _rows_of(row: Row) -> list[Row]:
    (asked, chosen), (others, rejected) = (_parted(row, side) for side in ("chosen", "rejected"))
    if asked != others:
        raise Unmapped("", "chosen and rejected do not share the prompt: they differ before the last turn")
    return [further(row) | _asked(row, asked) | {"chosen": chosen, "rejected": rejected}]


def _parted(row: Row, side: str) -> tuple[list[Message], str]:
    """What is asked in one of the two dialogues, and the answer."""
    turns = messages_of(row[side], side)
    if not turns or turns[-1]["role"] != "assistant":
        raise Unmapped(side, "does not end with a turn of the assistant's")
    return turns[:-1], turns[-1]["content"]


def _asked(row: Row, inside: list[Message]) -> Row:
    """What is asked: in the dialogues, apart, or in both, where both must say the same."""
    if not inside:
        if row.get("prompt") is None and row.get("messages") is None and row.get("conversations") is None:
            raise Unmapped("", "there is no prompt: neither a column prompt nor a turn before the answer")
        return asked_of(row)
    if is_turns(row.get("prompt")) and begun(messages_of(row["prompt"], "prompt"), row) != begun(inside, row):
        raise Unmapped("prompt", "is not what chosen and rejected begin with")
    if isinstance(row.get("prompt"), str):
        alone = {name: value for name, value in row.items() if name not in ("messages", "conversations")}
        said = {turn["content"].strip() for turn in inside}
        told = asked_of(alone)["prompt"]
        if told.strip() not in said and told != asked_of_turns(inside, "chosen", row)["prompt"]:
            raise Unmapped("prompt", "is none of the turns that chosen and rejected begin with")
    return asked_of_turns(inside, "chosen", row)


CONVERSATIONAL = Format(
    "chosen and rejected as messages", "comparisons", "chosen, rejected as messages (and prompt)", _fits, _rows_of
)
