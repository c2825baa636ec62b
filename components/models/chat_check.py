"""A chat template is tried before anything is trained with it: a wrong one is seen nowhere else."""

from __future__ import annotations

from dataclasses import replace

from components.data.rows import Message
from components.errors import ConfigError
from components.models.chat import Chat
from components.models.chat_template import not_the_dialogue
from components.models.text import Codec
from components.self_checks import Check, Checks

_AROUND = 8  # tokens on either side of the first that differs
_SYSTEM: Message = {"role": "system", "content": "Answer briefly."}
_DIALOGUES = (
    ("Name a colour.", "Blue."),
    ("which one?", "yes, that one"),
    (" behind a space", "2 + 2 = 4\n\nThat is all."),
    ("\nbehind a new line\n", "Größe, 日本語 🙂"),
    ("Über naïve Cafés: 日本語?", "Ja."),
    ("Hello.", "Hello, what is it?", "My printer.", "Switch it off and on."),
    ("One", "Two", "Three", "Four", "Five", "Six"),
)


def require_sound_template(codec: Codec, *, has_system_turns: bool, checks: Checks | None = None) -> None:
    """See that prompt and response are, token by token, the dialogue as the template writes it, up to the end of turn.

    What the dialogue's tokens are is asked of transformers. Nothing is asked of a codec without a chat template.

    Args:
        has_system_turns: whether the data holds any; those of params are looked at anyway.
        checks: told of how it went.
    Raises:
        ConfigError: they are not, the template fails, or it takes no system turn and there are some.
    """
    chat = codec.template
    if not isinstance(chat, Chat):
        return
    if has_system_turns or codec.format.system_prompt is not None:
        _require_system_role(chat)
    codec = replace(codec, format=replace(codec.format, max_prompt_tokens=10**6, max_response_tokens=10**6))
    tried = 0
    for contents in _DIALOGUES:
        turns = [
            Message(role="assistant" if number % 2 else "user", content=content)
            for number, content in enumerate(contents)
        ]
        for dialogue in [turns, [_SYSTEM, *turns]] if takes_system_role(chat) else [turns]:
            _require_round_trip(codec, chat, dialogue)
            tried += 1
    if checks is not None:
        what = "dialogues whose tokens are not those of prompt and response"
        checks.hold(Check("template", what, 0, f"of {tried}"), 0, where="chat template", fault=what, do="")


def takes_system_role(chat: Chat) -> bool:
    """Whether a system turn's text is in what the template writes."""
    return _system_fault(chat) is None


def _require_system_role(chat: Chat) -> None:
    fault = _system_fault(chat)
    if fault is not None:
        raise ConfigError(
            "the chat template takes no system turn",
            where="language_model.chat_template",
            expected="one that writes system turns, as params (language_model.system_prompt) or the data hold some",
            found=fault,
            do="take the system prompt out, or give a template that writes it, for example into the first user turn",
        )


def _system_fault(chat: Chat) -> str | None:
    try:
        text = chat.template.render([_SYSTEM, Message(role="user", content="x")], is_open=True)
    except ConfigError as fault:
        return fault.found
    return None if _SYSTEM["content"] in text else f"its text is left out: {text[-200:]!r}"


def _require_round_trip(codec: Codec, chat: Chat, turns: list[Message]) -> None:
    *asked, answer = turns
    [prompt], [response] = codec.encode_prompts([asked]), codec.encode_responses([answer["content"]])
    found, whole = prompt + response, chat.template.tokens(chat.template.conversation(turns))
    ends = [place for place, token in enumerate(whole) if token == codec.end_id]
    expected = whole[: ends[-1] + 1] if ends else whole
    if found == expected:
        return
    place = next(
        (number for number, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]),
        min(len(found), len(expected)),
    )
    around = slice(max(0, place - _AROUND), place + _AROUND)
    texts = (str(codec.tokenizer.convert_ids_to_tokens(row[around])) for row in (expected, found))
    raise not_the_dialogue(*texts)
