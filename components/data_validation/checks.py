"""What a check of the whole data set says: what should hold, what was found, the limit, and examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failure", "not in the data"]
SHOWN_EXAMPLES = 5
NO_COMPARISONS = "no comparisons"
SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Check:
    """One line of the report. `expected` is what should hold; a failure stops the stage."""

    name: str
    status: Status
    expected: str
    found: str
    value: float | None
    limit: float | None
    examples: list[str]
    remedy: str


def absent(name: str, expected: str, why: str) -> Check:
    """A check of something that the data does not hold."""
    return Check(name, "not in the data", expected, why, None, None, [], "")
