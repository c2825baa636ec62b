"""Two texts that begin with the same prompt: dialogues of Anthropic's HH, or any others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds
from components.data.formats.conversations import TURNS, asked_of_turns, further, hh_messages, is_hh

_ANSWER = "\n\nAssistant:"


def _are_texts(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return (
        not columns.intersection(("prompt", *TURNS))
        and holds(row, "chosen", "rejected")
        and isinstance(row["chosen"], str)
        and isinstance(row["rejected"], str)
    )


def _are_hh(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return _are_texts(row, columns) and is_hh(row["chosen"])


def _are_others(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return _are_texts(row, columns) and not is_hh(row["chosen"])


def _parted(row: Row, side: str) -> tuple[str, str]:
    """What is asked in one of the two dialogues, and the answer."""
    asked, answer_begins, answer = row[side].rpartition(_ANSWER)
    if not answer_begins or "\n\nHuman:" in answer:
        raise Unmapped(side, "does not end with a turn of the assistant's")
    return asked.strip(), answer.strip()


def _rows_of_hh(row: Row) -> list[Row]:
    (asked, chosen), (others, rejected) = (_parted(row, side) for side in ("chosen", "rejected"))
    if asked != others:
        raise Unmapped("", "chosen and rejected do not share the prompt: they differ before the last turn")
    return [further(row) | asked_of_turns(hh_messages(asked), "chosen", row) | {"chosen": chosen, "rejected": rejected}]


def _rows_of_others(row: Row) -> list[Row]:
    """The prompt is all that both begin with, up to the last space before they differ, which stays with the answers."""
    chosen, rejected = row["chosen"], row["rejected"]
    length = len(os.path.commonprefix((chosen, rejected)))
    while length and not chosen[length - 1].isspace():
        length -= 1
    prompt = chosen[:length].rstrip()
    if not prompt:
        raise Unmapped("", "chosen and rejected do not share the prompt: no column prompt, and they begin differently")
    begins = len(prompt)
    return [further(row) | {"prompt": prompt, "chosen": chosen[begins:], "rejected": rejected[begins:]}]


HH = Format(
    "HH dialogues", "comparisons", "chosen, rejected as whole dialogues (Human:, Assistant:)", _are_hh, _rows_of_hh
)
IMPLIED = Format(
    "chosen and rejected with a shared beginning", "comparisons", "chosen, rejected", _are_others, _rows_of_others
)
