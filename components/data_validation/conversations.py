"""What holds of the messages of a conversation: known roles that alternate, the last turn the user's, sound texts.

pandera has no schema for what is inside a value, so each of these takes the whole list. A rule that does not fit what
it is given (a role of a turn that is none) holds: that is another rule's fault to name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

from components.data.rows import Message
from components.data_validation.normalisation import has_encoding_fault, visible

ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])


def are_turns(messages: Any) -> bool:
    """A list of one turn or more, each with a role and a content that are texts, and nothing else."""
    return isinstance(messages, list) and len(messages) > 0 and all(map(_is_turn, messages))


def roles_are_known(messages: Any) -> bool:
    """Every role is one of ROLES."""
    return all(turn["role"] in ROLES for turn in _turns(messages))


def roles_alternate(messages: Any) -> bool:
    """A system prompt stands first if anywhere; then the user begins, and assistant and user take turns."""
    roles = [turn["role"] for turn in _turns(messages)]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not set(roles) <= set(ROLES):
        return True
    return spoken == [("user", "assistant")[place % 2] for place in range(len(spoken))]


def user_is_last(messages: Any) -> bool:
    """The assistant's next turn is the response."""
    return not are_turns(messages) or messages[-1]["role"] == "user"


def no_turn_is_empty(messages: Any) -> bool:
    return all(visible(turn["content"]) for turn in _turns(messages))


def turns_are_well_encoded(messages: Any) -> bool:
    return not any(has_encoding_fault(turn["content"]) for turn in _turns(messages))


RULES: dict[str, Callable[[Any], bool]] = {
    "are_turns": are_turns,
    "roles_are_known": roles_are_known,
    "roles_alternate": roles_alternate,
    "user_is_last": user_is_last,
    "no_turn_is_empty": no_turn_is_empty,
    "turns_are_well_encoded": turns_are_well_encoded,
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
        and turn.keys() == {"role", "content"}
        and isinstance(turn["role"], str)
        and isinstance(turn["content"], str)
    )


def _turns(messages: Any) -> Iterator[dict[str, str]]:
    return iter(messages if are_turns(messages) else ())
