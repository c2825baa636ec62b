"""Several answers to a prompt with their ranks or scores: each better with each worse, and ties make no pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds
from components.data.formats.conversations import asked_of, further, is_turns, messages_of, turns_column

ANSWERS = ("responses", "answers", "completions")  # columns of several answers
_RANKS = ("ranks", "rankings", "ranking")  # the lowest is the best
_SCORES = ("scores", "ratings")  # the highest is the best


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return (
        any(isinstance(row.get(name), list) for name in ANSWERS)
        and asks(row)
        and any(isinstance(row.get(name), list) for name in (*_RANKS, *_SCORES))
    )


def asks(row: Mapping[str, Any]) -> bool:
    """Whether a row has a prompt."""
    return holds(row, "prompt") or turns_column(row) is not None


def _rows_of(row: Row) -> list[Row]:
    where = next(name for name in ANSWERS if isinstance(row.get(name), list))
    column = next(name for name in (*_RANKS, *_SCORES) if isinstance(row.get(name), list))
    marks = row[column]
    answers = [answer_of(answer, where) for answer in row[where]]
    if len(marks) != len(answers):
        raise Unmapped(column, f"has {len(marks)} values for {len(answers)} {where}")
    what, lowest = ("rank", True) if column in _RANKS else ("score", False)
    require_numbers(marks, column)
    told = [{"": answer, what: mark} for answer, mark in zip(answers, marks, strict=True)]
    return pairs_of(row, further(row, where, column) | asked_of(row), told, what, lowest)


def require_numbers(marks: Sequence[object], column: str) -> None:
    """Raises: Unmapped, a mark is no number."""
    if not all(isinstance(mark, int | float) and not isinstance(mark, bool) for mark in marks):
        raise Unmapped(column, "has values that are no numbers")


def pairs_of(row: Row, kept: Row, answers: Sequence[Row], mark: str, best_is_lowest: bool) -> list[Row]:
    """Each better answer with each worse.

    Args:
        row: as it is, for its id.
        kept: the columns that all pairs have.
        answers: the columns of each answer; its text is that without a name. Of each column a pair gets two, such as
            rank_chosen and rank_rejected.
        mark: the column that says which is better.
    """
    rows = []
    for better, first in enumerate(answers):
        for worse, second in enumerate(answers):
            if first[mark] != second[mark] and (first[mark] < second[mark]) is best_is_lowest:
                pair = {"chosen": first[""], "rejected": second[""]}
                for name in filter(None, dict.fromkeys((mark, *first, *second))):
                    pair |= {f"{name}_chosen": first.get(name), f"{name}_rejected": second.get(name)}
                if row.get("id") is not None:
                    pair["id"] = f"{row['id']}/{better + 1}-{worse + 1}"
                rows.append(kept | pair)
    return rows


def answer_of(answer: object, column: str) -> object:
    """The text of an answer, which may be one turn of the assistant's.

    Raises:
        Unmapped: it is another's turn, or several.
    """
    if not is_turns(answer):
        return answer
    turns = messages_of(answer, column)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Unmapped(column, "holds an answer that is not one turn of the assistant's")
    return turns[0]["content"]


RANKED = Format(
    "ranked answers",
    "comparisons",
    f"prompt, one of {', '.join(ANSWERS)}, and one of {', '.join((*_RANKS, *_SCORES))}",
    _fits,
    _rows_of,
    why_none="no answer is better than another",
)
