"""All rows of a file, from the format that it has to rows of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from components.data.formats.base import Format, Row, Unmapped


@dataclass(frozen=True)
class Mapped:
    """Rows of ours with the numbers of those they come from; rows that are none, and why; rows that were not used."""

    rows: list[Row]
    numbers: list[int]
    unmapped: list[tuple[int, Row, Unmapped]]
    unused: dict[str, int]


def map_rows(rows: list[Row], numbers: Sequence[int], fitting: Format) -> Mapped:
    """Map every row of a file; what cannot be mapped is told by its row.

    `rows` are given away: each is emptied once it is mapped, for the texts of a large file are a gigabyte.
    """
    mapped: list[Row] = []
    places: list[int] = []
    unmapped: list[tuple[int, Row, Unmapped]] = []
    unused: Counter[str] = Counter()
    for place, number in enumerate(numbers):
        row, rows[place] = rows[place], {}
        try:
            made = fitting.rows_of(row)
        except Unmapped as fault:
            unmapped.append((number, row, fault))
            continue
        if not made:
            unused[fitting.why_none] += 1
        mapped += made
        places += [number] * len(made)
    if fitting.join is not None:
        pairs, left = fitting.join(list(zip(places, mapped, strict=True)))
        places, mapped = [number for number, _ in pairs], [row for _, row in pairs]
        unused.update(left)
    return Mapped(mapped, places, unmapped, dict(unused))
