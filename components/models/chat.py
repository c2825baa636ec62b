"""Conversations in a tokenizer's chat template: what an instruct model reads, and how it ends its turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from components.data.rows import Asked, Message
from components.errors import ConfigError
from components.models.chat_template import ChatTemplate
from components.models.control_texts import control_texts
from components.models.literal import Literal, pattern_of
from components.models.prompt_template import no_room
from components.models.text_format import TextFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Chat:
    """Renders conversations by the tokenizer's chat template and tokenises what it gives.

    The template writes control tokens; what the turns' contents spell of them is text. For contents that spell none
    the ids are those of transformers' `apply_chat_template(..., tokenize=True)`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text_format: TextFormat) -> None:
        self._tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, text_format)

    def encode(self, prompts: Sequence[Asked]) -> list[list[int]]:
        """Token ids of prompts, however long, up to where the assistant's turn begins."""
        return self._encode([self.template.conversation(prompt) for prompt in prompts], is_open=True)

    def cut(self, prompt: Asked, longest: int) -> list[int]:
        """Of a prompt that is longer: what is left without its oldest turns, or without the last one's beginning.

        The system turn and the template stay.

        Raises:
            ConfigError: there is no room for the end of the last turn.
        """
        return self._cut(self.template.conversation(prompt), longest, is_open=True)

    def require_room(self, longest: int) -> None:
        """See that a prompt of at least one token has room in the template. Raises: ConfigError."""
        [row] = self.encode(["a"])
        if len(row) > longest:
            raise no_room("chat_template", longest, len(row) - 1)

    def encode_responses(self, responses: list[str]) -> list[list[int]]:
        """Token ids of responses as they follow a prompt, each with the end of turn, however long.

        Space at the ends of a response is not part of it, as it is none of a sampled one's text.
        """
        turn = self.template.turn
        responses = [response.strip() for response in responses]
        spelled = [self._literal.pattern.search(response) is not None for response in responses]
        texts = [
            turn.lead + (self._literal.spell(response) if control else response) + turn.close
            for response, control in zip(responses, spelled, strict=True)
        ]
        [anchor] = self._ids([turn.anchor], [False])
        rows = self._ids([turn.anchor + text for text in texts], spelled)
        return [
            row[len(anchor) :] if row[: len(anchor)] == anchor else self._ids([text], [control])[0]
            for row, text, control in zip(rows, texts, spelled, strict=True)
        ]

    def encode_dialogues(self, prompts: Sequence[Asked], responses: Sequence[str], longest: int) -> list[list[int]]:
        """Token ids of whole dialogues, as a scorer reads them: with all that the template writes at their ends.

        One that is longer than `longest` loses its oldest turns, then the beginning of its last user turn, and what is
        still too long in front.
        """
        dialogues = [
            [*self.template.conversation(prompt), Message(role="assistant", content=response)]
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        rows = []
        for turns, row in zip(dialogues, self._encode(dialogues, is_open=False), strict=True):
            if len(row) > longest:
                try:
                    row = self._cut(turns, longest, is_open=False)
                except ConfigError:
                    row = row[-longest:]
            rows.append(row)
        return rows

    @property
    def control(self) -> list[str]:
        """The texts of control tokens."""
        return self.template.control

    @property
    def end_id(self) -> int:
        """The token that ends the assistant's turn."""
        number = self._tokenizer.convert_tokens_to_ids(self.template.turn.end)
        assert isinstance(number, int)
        return number

    def _encode(self, conversations: Sequence[Sequence[Message]], *, is_open: bool) -> list[list[int]]:
        search = self._literal.pattern.search
        spelled = [any(search(turn["content"]) for turn in turns) for turns in conversations]
        texts = [
            self._marked(turns, is_open) if control else self.template.render(turns, is_open=is_open)
            for turns, control in zip(conversations, spelled, strict=True)
        ]
        return self._ids(texts, spelled)

    def _marked(self, turns: Sequence[Message], is_open: bool) -> str:
        """A rendering in which what contents spell of control tokens has stand-ins.

        Some templates look for tokens in the assistant's turns, to leave out what was thought there: they see those
        that are not special, where it makes a difference.
        """
        literal, every = self._literal, self._literal.pattern
        bare = [Message(role=turn["role"], content=literal.sanitised(turn["content"])) for turn in turns]
        special = pattern_of(control_texts(self._tokenizer))
        for of_assistant in (every, special):
            marked = self.template.render(
                [
                    Message(
                        role=turn["role"],
                        content=literal.spell(turn["content"], of_assistant if turn["role"] == "assistant" else every),
                    )
                    for turn in bare
                ],
                is_open=is_open,
            )
            if literal.spelled_out(marked) == self.template.render(bare, is_open=is_open):
                break
        return marked

    def _cut(self, turns: list[Message], longest: int, *, is_open: bool) -> list[int]:
        system = turns[:1] if turns[0]["role"] == "system" else []
        rest, last = turns[len(system) :], 1 if is_open else 2  # the turns from the last question on
        while len(rest) > last:
            asked = (number for number in range(1, len(rest)) if rest[number]["role"] == "user")
            rest = rest[next(asked) :]
            [row] = self._encode([[*system, *rest]], is_open=is_open)
            if len(row) <= longest:
                return row
        question, answer = rest[-last]["content"], rest[len(rest) - last + 1 :]

        def asking(text: str) -> list[int]:
            [row] = self._encode([[*system, Message(role="user", content=text), *answer]], is_open=is_open)
            return row

        starts = self._starts(question)
        left_out = len(asking(question)) - longest
        while left_out < len(starts) and (text := question[starts[left_out] :]).strip():
            row = asking(text)
            if len(row) <= longest:
                return row
            left_out += len(row) - longest
        for start in range(starts[-1] + 1, len(question)):  # what is less than a token in its place may still be one
            if question[start:].strip() and len(row := asking(question[start:])) <= longest:
                return row
        raise no_room("chat_template", longest, len(asking("a")) - 1)

    def _starts(self, text: str) -> list[int]:
        """Where in a text its tokens begin."""
        if self._literal.pattern.search(text):
            [encoding] = self._literal.encode([self._literal.spelled_out(self._literal.spell(text))])
            return [start for start, _ in encoding.offsets]
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [start for start, _ in found["offset_mapping"]]

    def _ids(self, texts: Sequence[str], spelled: Sequence[bool]) -> list[list[int]]:
        """Of rendered texts; those that hold stand-ins for what is spelled are named."""
        plain = [text for text, marked in zip(texts, spelled, strict=True) if not marked]
        literal = [self._literal.mean(text) for text, marked in zip(texts, spelled, strict=True) if marked]
        rows = iter(self._tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
        others = iter(self._literal.encode(literal) if literal else [])
        return [list(next(others).ids) if marked else next(rows) for marked in spelled]

    @cached_property
    def _literal(self) -> Literal:
        return Literal(self._tokenizer, self.template.control)
