"""Several answers to a prompt with their ranks or scores: each better with each worse, and ties make no pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds
from components.data.formats.conversations import asked_of, further, is_turns, messages_of, turns_column

_RANKS = ("ranks", "rankings", "ranking")  # the lowest is the best
_SCORES = ("scores", "ratings")  # the highest is the best


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return (
        isinstance(row.get("responses"), list)
        and (holds(row, "prompt") or turns_column(row) is not None)
        and any(isinstance(row.get(name), list) for name in (*_RANKS, *_SCORES))
    )


def _rows_of(row: Row) -> list[Row]:
    column = next(name for name in (*_RANKS, *_SCORES) if isinstance(row.get(name), list))
    marks = row[column]
    answers = [_answer(answer) for answer in row["responses"]]
    if len(marks) != len(answers):
        raise Unmapped(column, f"has {len(marks)} values for {len(answers)} responses")
    if not all(isinstance(mark, int | float) and not isinstance(mark, bool) for mark in marks):
        raise Unmapped(column, "has values that are no numbers")
    what, best_is_lowest = ("rank", True) if column in _RANKS else ("score", False)
    kept = further(row, "responses", column) | asked_of(row)
    rows = []
    for better, first in enumerate(answers):
        for worse, second in enumerate(answers):
            if marks[better] != marks[worse] and (marks[better] < marks[worse]) is best_is_lowest:
                pair = {"chosen": first, "rejected": second}
                pair |= {f"{what}_chosen": marks[better], f"{what}_rejected": marks[worse]}
                if row.get("id") is not None:
                    pair["id"] = f"{row['id']}/{better + 1}-{worse + 1}"
                rows.append(kept | pair)
    return rows


def _answer(answer: object) -> object:
    if not is_turns(answer):
        return answer
    turns = messages_of(answer, "responses")
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Unmapped("responses", "holds an answer that is not one turn of the assistant's")
    return turns[0]["content"]


RANKED = Format(
    "ranked answers",
    "comparisons",
    f"prompt, responses, and one of {', '.join((*_RANKS, *_SCORES))}",
    _fits,
    _rows_of,
    why_none="no answer is better than another",
)
