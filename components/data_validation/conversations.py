"""What holds of the messages of a conversation: known roles that alternate, the last turn the user's, sound texts.

pandera has no schema for what is inside a value, so each of these takes the whole list. A rule that does not fit what
it is given (a role of a turn that is none) holds: that is another rule's fault to name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from components.data.rows import Message
from components.data_validation.normalisation import has_encoding_fault, visible

_KEYS = {"role", "content"}
ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])


def are_turns(messages: Any) -> bool:
    """A list of one turn or more, each with a role and a content that are texts, and nothing else."""
    return isinstance(messages, list) and len(messages) > 0 and all(map(_is_turn, messages))


def is_sound(messages: Any) -> bool:
    """Whether all rules hold: one look at the turns, where each of RULES takes one of its own."""
    return are_turns(messages) and all(holds(messages) for holds in _OF_TURNS.values())


def _roles_are_known(turns: list[dict[str, str]]) -> bool:
    """Every role is one of ROLES."""
    return all(turn["role"] in ROLES for turn in turns)


def _roles_alternate(turns: list[dict[str, str]]) -> bool:
    """A system prompt stands first if anywhere; then the user begins, and assistant and user take turns."""
    roles = [turn["role"] for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not set(roles) <= set(ROLES):
        return True
    return spoken == [("user", "assistant")[place % 2] for place in range(len(spoken))]


def _user_is_last(turns: list[dict[str, str]]) -> bool:
    """The assistant's next turn is the response."""
    return turns[-1]["role"] == "user"


def _no_turn_is_empty(turns: list[dict[str, str]]) -> bool:
    return all(visible(turn["content"]) for turn in turns)


def _are_well_encoded(turns: list[dict[str, str]]) -> bool:
    return not any(has_encoding_fault(turn["content"]) for turn in turns)


_OF_TURNS: dict[str, Callable[[list[dict[str, str]]], bool]] = {
    "roles_are_known": _roles_are_known,
    "roles_alternate": _roles_alternate,
    "user_is_last": _user_is_last,
    "no_turn_is_empty": _no_turn_is_empty,
    "turns_are_well_encoded": _are_well_encoded,
}


def _or_are_none(holds: Callable[[list[dict[str, str]]], bool]) -> Callable[[Any], bool]:
    return lambda messages: not are_turns(messages) or holds(messages)


RULES: dict[str, Callable[[Any], bool]] = {
    "are_turns": are_turns,
    **{name: _or_are_none(holds) for name, holds in _OF_TURNS.items()},
}


def first_question(row: dict[str, Any]) -> str:
    """What the user first says: all dialogues that go on from there are of one kin."""
    for turn in row.get("messages") or ():
        if turn["role"] == "user":
            text: str = turn["content"]
            return text
    prompt: str = row["prompt"]
    return prompt


def texts_of(row: dict[str, Any]) -> list[str]:
    """The texts of a prompt, without the names of roles that a transcript has."""
    return [turn["content"] for turn in row.get("messages") or ()] or [row["prompt"]]


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and len(turn) == 2
        and turn.keys() == _KEYS
        and isinstance(turn["role"], str)
        and isinstance(turn["content"], str)
    )
