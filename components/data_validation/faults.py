"""Why a row is rejected: the kinds of fault, and what each is called."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class FaultKind(Enum):
    """What the data report counts together, under this name."""

    SCHEMA = "schema"
    EMPTY_OR_OVERLONG = "empty_or_overlong_text"
    DUPLICATE = "exact_duplicates"
    EQUAL_RESPONSES = "chosen_equals_rejected"
    LOOK_EQUAL = "responses_look_equal"
    ENCODING = "encoding_faults"
    LEAKED = "leaked_prompts"


class Fault(NamedTuple):
    """One fault of a row: the column to blame, or "" where it is the whole row, and what is wrong."""

    column: str
    message: str
    kind: FaultKind

    def __str__(self) -> str:
        return f"{self.column} {self.message}" if self.column else self.message
