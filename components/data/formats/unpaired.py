"""Single answers, each labelled good or bad: pairs of those to one prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds, without
from components.data.formats.conversations import asked_of, further, is_turns, messages_of

_LABELS = {"true": True, "1": True, "false": False, "0": False}  # as a CSV spells them
_VOTE = "is good"  # no name that a column has


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return holds(row, "prompt", "completion", "label")


def _rows_of(row: Row) -> list[Row]:
    label = _LABELS.get(str(row["label"]).lower())
    if label is None:
        raise Unmapped("label", "is neither true nor false")
    answer = row["completion"]
    if is_turns(answer):
        turns = messages_of(answer, "completion")
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise Unmapped("completion", "is not one turn of the assistant's")
        answer = turns[0]["content"]
    return [further(row, "label") | asked_of(row) | {"completion": answer, _VOTE: label}]


def _join(rows: list[tuple[int, Row]]) -> tuple[list[tuple[int, Row]], dict[str, int]]:
    """The first good with the first bad, and so on; where one kind is fewer it begins again, so that all are used."""
    by_prompt: dict[tuple[str, str], dict[bool, list[tuple[int, Row]]]] = defaultdict(lambda: {True: [], False: []})
    for number, row in rows:
        by_prompt[str(row["prompt"]), str(row.get("messages"))][row[_VOTE]].append((number, row))
    pairs: list[tuple[int, Row]] = []
    unused: Counter[str] = Counter()
    for kinds in by_prompt.values():
        good, bad = kinds[True], kinds[False]
        if not good or not bad:
            unused["no answer of the other label to its prompt"] += len(good or bad)
            continue
        for place in range(max(len(good), len(bad))):
            pairs.append(_pair(good[place % len(good)], bad[place % len(bad)]))
    return sorted(pairs, key=lambda pair: pair[0]), dict(unused)


def _pair(good: tuple[int, Row], bad: tuple[int, Row]) -> tuple[int, Row]:
    """One comparison; it stands where its chosen answer does."""
    (number, chosen), (_, rejected) = good, bad
    pair = without(chosen, "completion", _VOTE, "id")
    if chosen.get("id") is not None and rejected.get("id") is not None:
        pair["id"] = f"{chosen['id']}/{rejected['id']}"
    return number, pair | {"chosen": chosen["completion"], "rejected": rejected["completion"]}


UNPAIRED = Format("unpaired answers", "comparisons", "prompt, completion, label", _fits, _rows_of, join=_join)
