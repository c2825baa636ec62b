"""Labels of the page of `proximal label`: two answers as they were shown, and which of them was preferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds
from components.data.formats.conversations import asked_of, further
from components.data.formats.ranked import asks

_PREFERRED = {"A": 0, "B": 1}
_NEITHER = ("tie", "skip")
NOBODY_PREFERRED = "neither answer was preferred"  # why a label gives no comparison


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return is_label(row)


def is_label(row: Mapping[str, Any]) -> bool:
    """Whether a row is what the page writes."""
    return isinstance(row.get("shown"), list) and isinstance(row.get("label"), str) and asks(row)


def _rows_of(row: Row) -> list[Row]:
    made = comparisons_of(row)
    if made and not made_here(row):
        raise Unmapped("shown", "has an answer without its policy")
    return made


def made_here(row: Row) -> bool:
    """Whether it is known which policies a label compares: those of the page are."""
    return all(isinstance(answer.get("policy"), dict) for answer in row["shown"])


def comparisons_of(row: Row) -> list[Row]:
    """The comparison that a label is, or none where neither answer was preferred.

    Args:
        row: what the page writes; labels that were made elsewhere may lack the policies.

    Raises:
        Unmapped: it is no label.
    """
    label, shown = row["label"], row["shown"]
    if label in _NEITHER:
        return []
    if label not in _PREFERRED:
        raise Unmapped("label", f"is none of {', '.join((*_PREFERRED, *_NEITHER))}")
    if len(shown) != 2 or not all(isinstance(answer, dict) and holds(answer, "text") for answer in shown):
        raise Unmapped("shown", "is not two answers, each with its text")
    chosen, rejected = shown[_PREFERRED[label]], shown[1 - _PREFERRED[label]]
    told: Row = {"shown_first": "chosen" if label == "A" else "rejected"}
    if made_here(row):
        told["source"] = "label"
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        told |= {name: answer["text"]}
        if made_here(row):
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
    why_none=NOBODY_PREFERRED,
)
