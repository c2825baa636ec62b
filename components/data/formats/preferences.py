"""A prompt and two answers, the preferred one first: all texts, or the prompt as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, holds
from components.data.formats.conversations import asked_of, further, is_turns, turns_column


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return (
        holds(row, "chosen", "rejected")
        and (holds(row, "prompt") or turns_column(row) is not None)
        and not is_turns(row["chosen"])
        and not is_turns(row["rejected"])
    )


def _rows_of(row: Row) -> list[Row]:
    asked = asked_of(row)
    if asked == {"prompt": row.get("prompt")} and "messages" not in row:
        return [row]
    return [further(row) | asked]


PREFERENCES = Format("prompt, chosen, rejected", "comparisons", "prompt, chosen, rejected", _fits, _rows_of)
