"""Several answers to a prompt, each a record of its text, its rank or score and whatever else, as Nectar has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped
from components.data.formats.conversations import asked_of, further
from components.data.formats.ranked import ANSWERS, answer_of, asks, pairs_of, require_numbers

_TEXTS = ("answer", "response", "completion", "text", "content")
_RANKS = ("rank", "ranking")  # the lowest is the best
_SCORES = ("score", "overall_score", "rating")  # the highest is the best


def _column(row: Mapping[str, Any]) -> str | None:
    """The column of such records: all have a text, and one at least a mark."""
    for name in ANSWERS:
        records = row.get(name)
        if isinstance(records, list) and records and all(isinstance(each, dict) for each in records):
            keys = set().union(*records)
            if keys.intersection(_TEXTS) and keys.intersection((*_RANKS, *_SCORES)):
                return name
    return None


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return asks(row) and _column(row) is not None


def _rows_of(row: Row) -> list[Row]:
    column = _column(row)
    if column is None:
        name = next((name for name in ANSWERS if name in row), "")
        raise Unmapped(name, "is no list of records, each with a text and a rank or score")
    records = row[column]
    text = _first(_TEXTS, records, column)
    mark = _first((*_RANKS, *_SCORES), records, column)
    require_numbers([record[mark] for record in records], f"{column}.{mark}")
    answers = [
        {"": answer_of(record[text], column)} | {name: value for name, value in record.items() if name != text}
        for record in records
    ]
    return pairs_of(row, further(row, column) | asked_of(row), answers, mark, mark in _RANKS)


def _first(names: tuple[str, ...], records: list[Row], column: str) -> str:
    """The first of these that all records have."""
    for name in names:
        if all(record.get(name) is not None for record in records):
            return name
    raise Unmapped(column, f"has an answer without one of {', '.join(names)} that all have")


RANKED_RECORDS = Format(
    "ranked answers as records",
    "comparisons",
    f"prompt, and one of {', '.join(ANSWERS)} with a text ({', '.join(_TEXTS)}) and a rank or score each",
    _fits,
    _rows_of,
    why_none="no answer is better than another",
)
