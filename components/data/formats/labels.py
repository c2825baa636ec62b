"""Labels of the page of `proximal label`: two answers as they were shown, and which of them was preferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds
from components.data.formats.conversations import asked_of, further
from components.data.formats.ranked import asks

_PREFERRED = {"A": 0, "B": 1}
_NEITHER = ("tie", "skip")


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return isinstance(row.get("shown"), list) and isinstance(row.get("label"), str) and asks(row)


def _rows_of(row: Row) -> list[Row]:
    label, shown = row["label"], row["shown"]
    if label in _NEITHER:
        return []
    if label not in _PREFERRED:
        raise Unmapped("label", f"is none of {', '.join((*_PREFERRED, *_NEITHER))}")
    if len(shown) != 2 or not all(isinstance(answer, dict) and holds(answer, "text", "policy") for answer in shown):
        raise Unmapped("shown", "is not two answers, each with its text and policy")
    chosen, rejected = shown[_PREFERRED[label]], shown[1 - _PREFERRED[label]]
    told = {"source": "label", "shown_first": "chosen" if label == "A" else "rejected"}
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        told |= {name: answer["text"]}
        told |= {f"policy_{name}": answer["policy"].get("name"), f"digest_{name}": answer["policy"].get("digest")}
    if holds(row, "pair", "annotator"):
        told["id"] = f"{row['pair']}/{row['annotator']}"
    return [further(row, "label", "shown") | asked_of(row) | told]


LABELS = Format(
    "labels of the page",
    "comparisons",
    "prompt, shown, label",
    _fits,
    _rows_of,
    why_none="neither answer was preferred",
)
