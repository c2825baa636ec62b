"""Conversations in the dialects that people have them in, and what a row asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from components.data.formats.base import Row, Unmapped, without
from components.data.rows import Message
from components.data.transcripts import asked_columns

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatbot", "chatgpt", "model"), "assistant"),
}
_HH_ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
TURNS = ("messages", "conversations", "conversation")  # columns of whole conversations
ASKED = ("prompt", "system", *TURNS)  # columns of which a prompt is made


def is_turns(value: object) -> bool:
    """Whether a value is meant as messages: a list, or one message alone."""
    return isinstance(value, list | dict)


def turns_column(row: Mapping[str, Any]) -> str | None:
    """The column of a row that holds a whole conversation."""
    return next((column for column in TURNS if row.get(column) is not None), None)


def messages_of(value: object, column: str) -> list[Message]:
    """Messages with our roles and names.

    Taken are {role, content} (OpenAI's) and {from, value} (ShareGPT's), one message alone, a struct of lists as some
    Parquet files have it, and contents in parts where all are text.

    Raises:
        Unmapped: it is no list of messages, or a role or content is not known.
    """
    if isinstance(value, dict):
        lists = {name: part for name, part in value.items() if isinstance(part, list)}
        structs = "role" in lists or "from" in lists
        value = (
            [dict(zip(lists, turn, strict=False)) for turn in zip(*lists.values(), strict=False)]
            if structs
            else [value]
        )
    if not isinstance(value, list):
        raise Unmapped(column, "is no list of messages")
    return [_message(turn, column) for turn in value]


def _message(turn: object, column: str) -> Message:
    if not isinstance(turn, dict):
        raise Unmapped(column, "has a turn that is no message with role and content")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise Unmapped(column, f"has a turn whose role is none of {', '.join(_ROLES)}")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(content, str):
        raise Unmapped(column, "has a turn whose content is not text")
    return {"role": _ROLES[role.lower()], "content": content}


def is_hh(value: object) -> bool:
    """Whether a text is a dialogue of Anthropic's HH: "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    return isinstance(value, str) and value.lstrip().startswith("Human:")


def hh_messages(text: str) -> list[Message]:
    """The turns of such a dialogue, without the space around them; a last turn of the assistant's may be empty."""
    parts = _HH_TURN.split("\n\n" + text.lstrip())[1:]
    return [
        {"role": _HH_ROLES[role], "content": content.strip()}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def asked_of(row: Row) -> Row:
    """The columns prompt and messages of a row that has a prompt: a text, a dialogue of HH's, or messages.

    Raises:
        Unmapped: its last turn is not the user's, or prompt and messages ask different things.
    """
    prompt, column = row.get("prompt"), turns_column(row)
    if column is not None:
        turns = messages_of(row[column], column)
        told = asked_of_turns(turns, column, row)
        known = (told["prompt"], *(turn["content"] for turn in turns if turn["role"] == "user"))
        if isinstance(prompt, str) and prompt not in known:
            raise Unmapped("prompt", f"is nothing that {column} asks")
        return told
    if is_turns(prompt):
        return asked_of_turns(messages_of(prompt, "prompt"), "prompt", row)
    if is_hh(prompt):
        turns = hh_messages(prompt)  # type: ignore[arg-type]
        if len(turns) > 1 and turns[-1] == {"role": "assistant", "content": ""}:
            turns.pop()
        return asked_of_turns(turns, "prompt", row)
    if _system(row) and isinstance(prompt, str):
        return asked_of_turns([{"role": "user", "content": prompt}], "prompt", row)
    return {"prompt": prompt}


def asked_of_turns(turns: list[Message], column: str, row: Row) -> Row:
    """The columns prompt and messages of a conversation, begun by the row's column `system` where it has one.

    Raises:
        Unmapped: its last turn is not the user's.
    """
    turns = begun(turns, row)
    if not turns or turns[-1]["role"] != "user":
        raise Unmapped(column, "asks nothing: its last turn is not the user's")
    return asked_columns(turns)


def begun(turns: list[Message], row: Row) -> list[Message]:
    """A conversation with the system prompt that the row has in a column `system`."""
    system = _system(row)
    if system and not (turns and turns[0]["role"] == "system"):
        return [{"role": "system", "content": system}, *turns]
    return turns


def _system(row: Row) -> str | None:
    system = row.get("system")
    return system if isinstance(system, str) and system.strip() else None


def further(row: Row, *mapped: str) -> Row:
    """The columns of a row that are kept as they are: not those of its prompt, nor those that were mapped."""
    return without(row, *ASKED, *mapped)
