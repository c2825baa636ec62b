"""What is said of prompts that are conversations; information only."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from components.data_validation.checks import Check
from components.data_validation.reading import Row


def turns_of(prompts: Sequence[Row]) -> list[int]:
    """How many turns each prompt has, a system prompt not counted: one where it is a text."""
    return [sum(turn["role"] != "system" for turn in row.get("messages") or ()) or 1 for row in prompts]


def conversation_checks(prompts: Sequence[Row]) -> list[Check]:
    """How many prompts are conversations and how long these are; none where all prompts are texts."""
    conversations = [row for row in prompts if row.get("messages")]
    if not conversations:
        return []
    share, turns = len(conversations) / len(prompts), turns_of(prompts)
    systems = sum(row["messages"][0]["role"] == "system" for row in conversations)
    found = (
        f"{len(conversations)} of {len(prompts)} ({share:.1%}), {systems} with a system prompt; "
        f"{median(turns):g} turns a prompt (median), {max(turns)} at most"
    )
    return [Check("conversations", "ok", "prompts are texts or conversations", found, share, None, [], "")]
