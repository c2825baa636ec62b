"""What a format is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["prompts", "demonstrations", "comparisons"]
Row = dict[str, Any]


class Unmapped(Exception):
    """A row from which no row of ours can be made: the column to blame, or "", and what is wrong."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(column, message)
        self.column = column
        self.message = message


@dataclass(frozen=True)
class Format:
    """How the rows of a file are told and mapped.

    Args:
        name: what the data report calls it.
        role: what its rows become.
        needs: its columns, for people.
        fits: whether a row has this format, given the row and all columns of its file.
        rows_of: the rows that come from one. Raises: Unmapped.
        why_none: why a row may give none, though nothing is wrong with it.
        join: where rows become one with others of the file: from (number, row) of all to (number, row), and the reasons
            for which others were left over, counted.
    """

    name: str
    role: Role
    needs: str
    fits: Callable[[Mapping[str, Any], frozenset[str]], bool]
    rows_of: Callable[[Row], Sequence[Row]]
    why_none: str = ""
    join: Callable[[list[tuple[int, Row]]], tuple[list[tuple[int, Row]], dict[str, int]]] | None = None


def holds(row: Mapping[str, Any], *columns: str) -> bool:
    """Whether all of these columns have a value."""
    return all(row.get(column) is not None for column in columns)


def without(row: Row, *columns: str) -> Row:
    """A row's other columns."""
    return {name: value for name, value in row.items() if name not in columns}
