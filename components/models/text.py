"""Text to tokens and back. A stored policy carries these settings with it, so that it answers alike everywhere."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import read_json, reading
from components.errors import ConfigError, DataError
from components.models.control_texts import control_texts, without_end

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

FORMAT_FILE = "proximal.json"
SCRATCH_CONTROL_TOKENS = SCRATCH_PAD, SCRATCH_BOS, SCRATCH_EOS = "<pad>", "<bos>", "<eos>"


@dataclass(frozen=True)
class TextFormat:
    """How a prompt is dressed, the longest texts in tokens, and what ends a response beside the tokenizer's end token.

    A prompt that is too long loses its beginning; the template around it, and what the tokenizer puts before it, stay.
    """

    prompt_template: str
    max_prompt_tokens: int
    max_response_tokens: int
    stop_ids: tuple[int, ...] = ()  # a checkpoint's generation_config may name several

    def save(self, folder: Path) -> None:
        content = {name: value for name, value in asdict(self).items() if name != "stop_ids" or value}
        (folder / FORMAT_FILE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> TextFormat:
        path = folder / FORMAT_FILE
        with reading("text format", path, "prompt_template, max_prompt_tokens and max_response_tokens"):
            content = dict(read_json(path))
            return cls(**{**content, "stop_ids": tuple(map(int, content.get("stop_ids", ())))})


@dataclass(frozen=True)
class Codec:
    """A tokenizer together with the text format."""

    tokenizer: PreTrainedTokenizerBase
    format: TextFormat

    @property
    def eos_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Any id of the model's would do: masks come from lengths, never from ids, so padding is never looked at."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_id)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a response, the tokenizer's end token first: that one ends those in the data."""
        return (self.eos_id, *(number for number in self.format.stop_ids if number != self.eos_id))

    @cached_property
    def end_texts(self) -> tuple[str, ...]:
        """How the control tokens that end a response are spelled."""
        control = set(control_texts(self.tokenizer))
        texts = self.tokenizer.convert_ids_to_tokens(list(self.stop_ids))
        return tuple(text for text in texts if text in control)

    def is_stop(self, tokens: Tensor) -> Tensor:
        """Which tokens end a response. Shapes: as given."""
        first, *others = self.stop_ids
        ended = tokens == first
        for number in others:
            ended = ended | (tokens == number)
        return ended

    def encode_prompts(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of dressed prompts; of a prompt that is too long, the end is kept, and the whole template.

        Control tokens are those that the template spells. What a prompt spells of them is text like any other, but for
        end tokens at its end, which are left out.

        Raises:
            DataError: a prompt has no tokens.
            ConfigError: the template leaves no room for a prompt.
        """
        rows = []
        for prompt, row in zip(prompts, self._dressed(prompts), strict=True):
            if not row:
                raise DataError("a prompt has no tokens", where=f"prompt {prompt!r}", do="remove the row")
            rows.append(row if len(row) <= self.format.max_prompt_tokens else self._cut(prompt))
        return rows

    def are_too_long(self, prompts: list[str]) -> list[bool]:
        """Which prompts `encode_prompts` cuts."""
        return [len(row) > self.format.max_prompt_tokens for row in self._dressed(prompts)]

    def require_room(self) -> None:
        """See that a prompt of at least one token has room in the template. Raises: ConfigError."""
        count = sum(not is_own for _, is_own in self._apart("a"))
        if count >= self.format.max_prompt_tokens:
            raise self._no_room(count)

    def encode_responses(self, responses: list[str]) -> list[list[int]]:
        """Token ids of responses, each with one end token; one that is too long is cut and has none.

        An end token that is spelled at the end of a text is the same end token; all other control tokens that are
        spelled there are text like any other.
        """
        if not responses:
            return []
        texts = [without_end(response, self.end_texts) for response in responses]
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [[*row, self.eos_id][: self.format.max_response_tokens] for row in encoded]

    def _dressed(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of dressed prompts, however long."""
        prompts = [without_end(prompt, self.end_texts) for prompt in prompts]
        spelled = [self._control.search(prompt) is not None for prompt in prompts]
        texts = [
            self.format.prompt_template.replace("{prompt}", prompt)
            for prompt, control in zip(prompts, spelled, strict=True)
            if not control
        ]
        rows = iter(self.tokenizer(texts)["input_ids"] if texts else [])
        return [
            [token for token, _ in self._apart(prompt)] if control else self._whole(next(rows))
            for prompt, control in zip(prompts, spelled, strict=True)
        ]

    def _cut(self, prompt: str) -> list[int]:
        tokens = self._apart(without_end(prompt, self.end_texts))
        spare = len(tokens) - self.format.max_prompt_tokens
        own = [place for place, (_, is_own) in enumerate(tokens) if is_own]
        if spare >= len(own):
            raise self._no_room(len(tokens) - len(own))
        left_out = set(own[:spare])
        return [token for place, (token, _) in enumerate(tokens) if place not in left_out]

    def _no_room(self, count: int) -> ConfigError:
        return ConfigError(
            "the prompt template leaves no room for a prompt",
            where="language_model.max_prompt_tokens",
            expected=f"more than the {count} tokens of language_model.prompt_template and of what the tokenizer puts "
            "before a text",
            found=str(self.format.max_prompt_tokens),
            do="raise language_model.max_prompt_tokens or shorten the template",
        )

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, control_texts(self.tokenizer))))

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind every text."""
        bare: list[int] = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        dressed: list[int] = self.tokenizer("a")["input_ids"]
        if not bare:  # it has no "a"
            return (dressed[:-1], dressed[-1:]) if dressed[-1:] == [self.eos_id] else (dressed, [])
        start = next(place for place in range(len(dressed)) if dressed[place : place + len(bare)] == bare)
        return dressed[:start], dressed[start + len(bare) :]

    def _whole(self, row: list[int]) -> list[int]:
        """A dressed text as the tokenizer gives it, open for the response: some tokenizers close every text."""
        closing = self._added[1]
        return self._begun_once(row[: -len(closing)] if closing else row)

    def _begun_once(self, row: list[int]) -> list[int]:
        """With one token of the beginning: a template may spell the one that the tokenizer puts there too."""
        bos = self.tokenizer.bos_token_id
        while bos is not None and row[:2] == [bos, bos]:
            row = row[1:]
        return row

    def _apart(self, prompt: str) -> list[tuple[int, bool]]:
        """The ids of a dressed prompt, each with whether it is the prompt's own and not of what is around it.

        A prompt that spells control tokens is tokenised with the text around it up to the template's nearest control
        tokens, which are such, while its own are text.
        """
        before, after = self.format.prompt_template.split("{prompt}")
        head = tail = ""
        spelled = self._control.search(prompt) is not None
        if spelled and (found := list(self._control.finditer(before))):
            head, before = before[: found[-1].end()], before[found[-1].end() :]
        if spelled and (first := self._control.search(after)):
            after, tail = after[: first.start()], after[first.start() :]
        text, start, end = before + prompt + after, len(before), len(before) + len(prompt)
        middle = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=spelled,
            return_offsets_mapping=True,
        )
        places = zip(middle["input_ids"], middle["offset_mapping"], strict=True)
        tokens = [(token, False) for token in self._added[0] + self._ids(head)]
        for token, (first, last) in places:  # a token of the prompt may have taken up a space beside it
            around = text[first:start] + text[end:last]
            tokens.append((token, max(first, start) < min(last, end) and not around.strip()))
        tokens += [(token, False) for token in self._ids(tail)]
        return tokens[len(tokens) - len(self._begun_once([token for token, _ in tokens])) :]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Text of response tokens, up to the end token."""
        stops = set(self.stop_ids)
        cut = [row[: next((place for place, token in enumerate(row) if token in stops), len(row))] for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(cut, skip_special_tokens=True)]


def train_tokenizer(texts: list[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer, trained on the given texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SCRATCH_CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SCRATCH_BOS} $A", special_tokens=[(SCRATCH_BOS, tokenizer.token_to_id(SCRATCH_BOS))]
    )
    fast: Any = PreTrainedTokenizerFast  # untyped in transformers
    made: PreTrainedTokenizerBase = fast(
        tokenizer_object=tokenizer, pad_token=SCRATCH_PAD, bos_token=SCRATCH_BOS, eos_token=SCRATCH_EOS
    )
    return made
