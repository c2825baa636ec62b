"""Prompts in a text around {prompt}: what a policy without a chat template reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from components.data.rows import Asked
from components.errors import ConfigError
from components.models.control_texts import control_texts
from components.models.literal import Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptTemplate:
    """Dresses prompts, and ends responses in the tokenizer's end token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.end_id = int(tokenizer.eos_token_id)
        self.control = control_texts(tokenizer)

    def encode(self, prompts: Sequence[Asked]) -> list[list[int]]:
        """Token ids of dressed prompts, however long. Raises: ConfigError, a conversation is among them."""
        texts = [_text(prompt) for prompt in prompts]
        spelled = [self._literal.pattern.search(text) is not None for text in texts]
        plain = [
            self._template.replace("{prompt}", text)
            for text, control in zip(texts, spelled, strict=True)
            if not control
        ]
        rows = iter(self._tokenizer(plain)["input_ids"] if plain else [])
        return [
            [token for token, _ in self._apart(text)] if control else self._whole(next(rows))
            for text, control in zip(texts, spelled, strict=True)
        ]

    def cut(self, prompt: Asked, longest: int) -> list[int]:
        """Of a prompt that is longer: its end and the whole template. Raises: ConfigError, there is no room for it."""
        tokens = self._apart(_text(prompt))
        spare = len(tokens) - longest
        own = [place for place, (_, is_own) in enumerate(tokens) if is_own]
        if spare >= len(own):
            raise no_room("prompt_template", longest, len(tokens) - len(own))
        left_out = set(own[:spare])
        return [token for place, (token, _) in enumerate(tokens) if place not in left_out]

    def require_room(self, longest: int) -> None:
        """See that a prompt of at least one token has room in the template. Raises: ConfigError."""
        count = sum(not is_own for _, is_own in self._apart("a"))
        if count >= longest:
            raise no_room("prompt_template", longest, count)

    def encode_responses(self, responses: list[str]) -> list[list[int]]:
        """Token ids of responses, each with its end token, however long."""
        rows: list[list[int]] = self._tokenizer(responses, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [[*row, self.end_id] for row in rows]

    def encode_dialogues(self, prompts: Sequence[Asked], responses: Sequence[str], longest: int) -> list[list[int]]:
        """Token ids of prompts with their responses; see `Codec.encode_dialogues`."""
        rows = []
        answers = self.encode_responses(list(responses))
        for asked, prompt, answer in zip(prompts, self.encode(prompts), answers, strict=True):
            if len(prompt) + len(answer) > longest:
                try:
                    prompt = self.cut(asked, longest - len(answer))
                except ConfigError:
                    prompt = []
            rows.append([*prompt, *answer][-longest:])
        return rows

    @cached_property
    def _literal(self) -> Literal:
        return Literal(self._tokenizer, self.control)

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind every text."""
        bare: list[int] = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        dressed: list[int] = self._tokenizer("a")["input_ids"]
        if not bare:  # it has no "a"
            return (dressed[:-1], dressed[-1:]) if dressed[-1:] == [self.end_id] else (dressed, [])
        start = next(place for place in range(len(dressed)) if dressed[place : place + len(bare)] == bare)
        return dressed[:start], dressed[start + len(bare) :]

    def _whole(self, row: list[int]) -> list[int]:
        """A dressed text as the tokenizer gives it, open for the response: some tokenizers close every text."""
        closing = self._added[1]
        return self._begun_once(row[: -len(closing)] if closing else row)

    def _begun_once(self, row: list[int]) -> list[int]:
        """With one token of the beginning: a template may spell the one that the tokenizer puts there too."""
        bos = self._tokenizer.bos_token_id
        while bos is not None and row[:2] == [bos, bos]:
            row = row[1:]
        return row

    def _apart(self, prompt: str) -> list[tuple[int, bool]]:
        """The ids of a dressed prompt, each with whether it is the prompt's own and not of what is around it.

        The control tokens that the template spells are such; those of the prompt are text.
        """
        before, after = self._template.split("{prompt}")
        if self._literal.pattern.search(prompt):
            before, after = self._literal.mean(before), self._literal.mean(after)
            prompt = self._literal.spelled_out(self._literal.spell(prompt))
            [encoding] = self._literal.encode([before + prompt + after])
            places = zip(encoding.ids, encoding.offsets, strict=True)
        else:
            found = self._tokenizer(before + prompt + after, add_special_tokens=False, return_offsets_mapping=True)
            places = zip(found["input_ids"], found["offset_mapping"], strict=True)
        text, start, end = before + prompt + after, len(before), len(before) + len(prompt)
        tokens = [(token, False) for token in self._added[0]]
        for token, (first, last) in places:  # a token of the prompt may have taken up a space beside it
            around = text[first:start] + text[end:last]
            tokens.append((token, max(first, start) < min(last, end) and not around.strip()))
        return tokens[len(tokens) - len(self._begun_once([token for token, _ in tokens])) :]


def no_room(key: str, longest: int, count: int) -> ConfigError:
    """The template alone takes all the tokens that a prompt may have."""
    return ConfigError(
        f"the {key.replace('_', ' ')} leaves no room for a prompt",
        where="language_model.max_prompt_tokens",
        expected=f"more than the {count} tokens of language_model.{key} and of what the tokenizer puts before a text",
        found=str(longest),
        do="raise language_model.max_prompt_tokens or shorten the template",
    )


def _text(prompt: Asked) -> str:
    if isinstance(prompt, str):
        return prompt
    raise no_chat_template(f"a prompt of {len(prompt)} messages")


def no_chat_template(found: str) -> ConfigError:
    """Messages have nothing that makes a text of them."""
    return ConfigError(
        "there is no chat template for messages",
        where="language_model.chat_template",
        expected="a chat template, as the data holds conversations of several turns or with a system prompt",
        found=f"language_model.prompt_template alone, and {found}",
        do='set language_model.chat_template ("tokenizer" for the checkpoint\'s own) and prompt_template: null, or '
        "bring prompts that are texts",
    )
