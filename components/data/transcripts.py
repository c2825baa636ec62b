"""A conversation as a text that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.data.rows import Message


def transcript(messages: Sequence[Message]) -> str:
    """Every turn with its role, e.g. "User: Hello.\\n\\nAssistant: Hi.\\n\\nUser: Who are you?"."""
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages)


def asked_columns(messages: list[Message]) -> dict[str, Any]:
    """The columns of a prompt: one turn of the user's is its text, any other conversation its transcript and itself."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return {"prompt": messages[0]["content"]}
    return {"prompt": transcript(messages), "messages": messages}
