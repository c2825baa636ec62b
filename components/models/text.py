"""Text to tokens and back. A stored policy carries its settings with it, so that it answers alike everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from components.data.rows import Asked
from components.errors import DataError
from components.models.chat import Chat
from components.models.control_texts import without_end
from components.models.prompt_template import PromptTemplate
from components.models.text_format import TextFormat

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

__all__ = ["Codec", "TextFormat", "train_tokenizer"]
SCRATCH_CONTROL_TOKENS = SCRATCH_PAD, SCRATCH_BOS, SCRATCH_EOS = "<pad>", "<bos>", "<eos>"


@dataclass(frozen=True)
class Codec:
    """A tokenizer together with the text format."""

    tokenizer: PreTrainedTokenizerBase
    format: TextFormat

    @cached_property
    def template(self) -> Chat | PromptTemplate:
        """What dresses prompts and ends responses: the tokenizer's chat template, or the format's text."""
        if self.format.prompt_template is None:
            return Chat(self.tokenizer, self.format)
        return PromptTemplate(self.tokenizer, self.format.prompt_template)

    @property
    def eos_id(self) -> int:
        """The tokenizer's end token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Any id of the model's would do: masks come from lengths, never from ids, so padding is never looked at."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_id)

    @property
    def end_id(self) -> int:
        """The token that ends responses in the data: a chat template's end of turn, or the tokenizer's end token."""
        return self.template.end_id

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a response, that of responses in the data first."""
        return tuple(dict.fromkeys((self.end_id, self.eos_id, *self.format.stop_ids)))

    @cached_property
    def end_texts(self) -> tuple[str, ...]:
        """How the control tokens that end a response are spelled."""
        control = set(self.template.control)
        texts = self.tokenizer.convert_ids_to_tokens(list(self.stop_ids))
        return tuple(text for text in texts if text in control)

    def is_stop(self, tokens: Tensor) -> Tensor:
        """Which tokens end a response. Shapes: as given."""
        first, *others = self.stop_ids
        ended = tokens == first
        for number in others:
            ended = ended | (tokens == number)
        return ended

    def encode_prompts(self, prompts: Sequence[Asked]) -> list[list[int]]:
        """Token ids of prompts, texts or conversations, up to where the response begins.

        Of a prompt that is too long, the end is kept, and the whole template: the oldest turns go first, then the
        beginning of the last. Control tokens are those that the template spells. What a prompt spells of them is text
        like any other, but for end tokens at its end, which are left out.

        Raises:
            DataError: a prompt has no tokens.
            ConfigError: the template leaves no room for a prompt, or cannot take one.
        """
        prompts = list(map(self._without_end, prompts))
        rows, longest = [], self.format.max_prompt_tokens
        for prompt, row in zip(prompts, self.template.encode(prompts), strict=True):
            if not row:
                raise DataError("a prompt has no tokens", where=f"prompt {prompt!r}", do="remove the row")
            rows.append(row if len(row) <= longest else self.template.cut(prompt, longest))
        return rows

    def are_too_long(self, prompts: Sequence[Asked]) -> list[bool]:
        """Which prompts `encode_prompts` cuts."""
        rows = self.template.encode(list(map(self._without_end, prompts)))
        return [len(row) > self.format.max_prompt_tokens for row in rows]

    def require_room(self) -> None:
        """See that a prompt of at least one token has room in the template. Raises: ConfigError."""
        self.template.require_room(self.format.max_prompt_tokens)

    def encode_responses(self, responses: list[str]) -> list[list[int]]:
        """Token ids of responses, each with one end token; one that is too long is cut and has none.

        An end token that is spelled at the end of a text is the same end token; all other control tokens that are
        spelled there are text like any other.
        """
        if not responses:
            return []
        texts = [without_end(response, self.end_texts) for response in responses]
        return [row[: self.format.max_response_tokens] for row in self.template.encode_responses(texts)]

    def encode_dialogues(self, prompts: Sequence[Asked], responses: Sequence[str], longest: int) -> list[list[int]]:
        """Token ids of whole dialogues, as a scorer of another origin reads them, who scores at the last token.

        With a chat template they are those of transformers' `apply_chat_template(..., tokenize=True)`, with all that
        the template writes at their ends. One longer than `longest` loses its oldest turns, then the beginning of its
        last prompt, and what is still too long in front.

        Raises:
            ConfigError: the template cannot take a prompt.
        """
        return self.template.encode_dialogues(prompts, responses, longest)

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Text of response tokens, up to the end token."""
        stops = set(self.stop_ids)
        cut = [row[: next((place for place, token in enumerate(row) if token in stops), len(row))] for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(cut, skip_special_tokens=True)]

    def _without_end(self, prompt: Asked) -> Asked:
        if isinstance(prompt, str):
            return without_end(prompt, self.end_texts)
        return [{**turn, "content": without_end(turn["content"], self.end_texts)} for turn in prompt]


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
