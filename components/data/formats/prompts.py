"""Prompts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, holds
from components.data.formats.conversations import asked_of, further, turns_column

_ANSWERS = ("chosen", "rejected", "response", "responses", "completion")


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return holds(row, "prompt") and turns_column(row) is None and not columns.intersection(_ANSWERS)


def _rows_of(row: Row) -> list[Row]:
    asked = asked_of(row)
    return [row] if asked == {"prompt": row.get("prompt")} and "messages" not in row else [further(row) | asked]


PROMPTS = Format("prompts", "prompts", "prompt", _fits, _rows_of)
# Of these `detect` decides by all rows of a file: none of them ends with a turn of the assistant's.
ASKED_DIALOGUES = Format("prompts as messages", "prompts", "messages that end with the user's", _fits, _rows_of)
