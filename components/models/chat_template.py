"""A tokenizer's chat template: the text that it makes of a conversation, and what it writes of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from components.data.rows import Asked, Message
from components.errors import ConfigError, DataError
from components.models.control_texts import control_texts
from components.models.literal import pattern_of
from components.models.text_format import TextFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION, _ANSWER = "question", "answer"  # of a conversation that is rendered to see what the template writes


class Turn(NamedTuple):
    """How the assistant's turn is written.

    Args:
        anchor: the end of a prompt, from its last control token on, which a response's first token may merge with.
        lead, close: what stands between a prompt and a response, and behind it through the end-of-turn token.
        end: the text of that token.
    """

    anchor: str
    lead: str
    close: str
    end: str


class ChatTemplate:
    """Renders conversations by `apply_chat_template`, with the options and the system prompt of the text format."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text_format: TextFormat) -> None:
        self._tokenizer = tokenizer
        self._options = dict(text_format.chat_template_options)
        self._system_prompt = text_format.system_prompt

    def conversation(self, asked: Asked) -> list[Message]:
        """The turns of what is asked: a text is one turn of the user's; the system prompt of params comes first.

        Raises:
            DataError: nothing is asked.
        """
        turns: list[Message] = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
        if not turns or not turns[-1]["content"].strip():
            raise DataError("a prompt has no tokens", where=f"prompt {asked!r}", do="remove the row")
        if self._system_prompt is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self._system_prompt})
        return turns

    def render(self, turns: Sequence[Message], *, is_open: bool) -> str:
        """The text of a conversation.

        Args:
            is_open: up to where the assistant's next turn begins.
        Raises:
            ConfigError: the template refuses it or fails.
        """
        text = self._applied(turns, add_generation_prompt=is_open, tokenize=False)
        assert isinstance(text, str)
        return text

    def tokens(self, turns: Sequence[Message]) -> list[int]:
        """What transformers makes of a whole dialogue, control tokens that contents spell included."""
        ids: list[int] = self._applied(turns, tokenize=True, return_dict=False)
        return ids

    def _applied(self, turns: Sequence[Message], **named: Any) -> Any:
        from jinja2 import TemplateError

        try:
            messages: Any = [dict(turn) for turn in turns]
            return self._tokenizer.apply_chat_template(messages, **named, **self._options)
        # A template is a program that comes with the checkpoint: what it does wrong shows as any of these.
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as fault:
            raise ConfigError(
                "the chat template fails on a conversation",
                where="language_model.chat_template",
                expected=f"a text of turns of {', '.join(turn['role'] for turn in turns)}",
                found=f"{type(fault).__name__}: {' '.join(str(fault).split())[:300]}",
                do="give a template that takes such turns, or bring data that suits it",
            ) from fault

    @cached_property
    def control(self) -> list[str]:
        """The texts of control tokens: the special ones, and what else of added tokens the template writes."""
        question = self.conversation(_QUESTION)
        further: list[Message] = [{"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _QUESTION}]
        texts = [
            self.render([*question, *further], is_open=True),
            self.render([*question, *further[:1]], is_open=False),
        ]
        written = {text for each in texts for text in self._added.findall(each)}
        special = control_texts(self._tokenizer)
        return special + sorted(written.difference(special))

    @cached_property
    def turn(self) -> Turn:
        """How the assistant's turn is written.

        Raises:
            ConfigError: no control token ends it, or it does not go on where a prompt ends.
        """
        turns = self.conversation(_QUESTION)
        prompt = self.render(turns, is_open=True)
        whole = self.render([*turns, Message(role="assistant", content=_ANSWER)], is_open=False)
        start = whole.rfind(_ANSWER)
        end = self._added.search(whole, start + len(_ANSWER)) if start >= 0 else None
        if end is None:
            raise ConfigError(
                "the chat template does not end the assistant's turn",
                where="language_model.chat_template",
                expected="a control token of the tokenizer behind the assistant's text, where sampled responses end",
                found=repr(whole[max(0, start) :][-200:]),
                do="give a template that writes one there, such as the tokenizer's {{ eos_token }}",
            )
        lead = whole[len(prompt) : start]
        if not whole.startswith(prompt) or lead.strip():
            raise not_the_dialogue(repr(whole[:start][-120:]), repr(prompt[-120:]))
        last = max((found.start() for found in self._added.finditer(prompt)), default=0)
        return Turn(prompt[last:], lead, whole[start + len(_ANSWER) : end.end()], end[0])

    @cached_property
    def _added(self) -> re.Pattern[str]:
        """Every token that is matched as a whole before text is split; templates also write those of space, as text."""
        return pattern_of([text for text in self._tokenizer.added_tokens_encoder if not text.isspace()])


def not_the_dialogue(expected: str, found: str) -> ConfigError:
    """A prompt with its response is not what the template makes of the whole dialogue."""
    return ConfigError(
        "the chat template does not round-trip: a prompt and its response are not the dialogue",
        where="language_model.chat_template",
        expected=f"as the template writes the whole dialogue: {expected}",
        found=f"as it opens the prompt, with the response behind: {found}",
        do="set language_model.chat_template_options so that both agree (of templates that let a model think, "
        "enable_thinking: false), or give a template of your own, whose prompt ends in no space before a word",
    )
