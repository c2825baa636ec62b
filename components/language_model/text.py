"""Text to tokens and back. A stored policy carries these settings with it, so that it answers alike everywhere."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import read_json, reading
from components.errors import DataError
from components.profile import span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT_FILE = "proximal.json"


@dataclass(frozen=True)
class TextFormat:
    """How a prompt is dressed, and the longest texts in tokens."""

    prompt_template: str
    max_prompt_tokens: int
    max_response_tokens: int

    def save(self, folder: Path) -> None:
        (folder / FORMAT_FILE).write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> TextFormat:
        path = folder / FORMAT_FILE
        with reading("text format", path, "prompt_template, max_prompt_tokens and max_response_tokens"):
            return cls(**read_json(path))


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
        """Any id would do: masks come from lengths, never from ids, so padding is never looked at."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_id)

    @span("data")
    def encode_prompts(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of dressed prompts; of one that is too long, the end is kept."""
        texts = [self.format.prompt_template.replace("{prompt}", prompt) for prompt in prompts]
        encoded: list[list[int]] = self.tokenizer(texts)["input_ids"] if texts else []
        rows = []
        for prompt, row in zip(prompts, encoded, strict=True):
            if row and row[-1] == self.eos_id:  # some tokenizers close every text; the response comes first
                row = row[:-1]
            if not row:
                raise DataError("a prompt has no tokens", where=f"prompt {prompt!r}", do="remove the row")
            rows.append(row[-self.format.max_prompt_tokens :])
        return rows

    @span("data")
    def encode_responses(self, responses: list[str]) -> list[list[int]]:
        """Token ids of responses, each with its end token; one that is too long is cut and has none."""
        if not responses:
            return []
        encoded: list[list[int]] = self.tokenizer(responses, add_special_tokens=False)["input_ids"]
        return [[*row, self.eos_id][: self.format.max_response_tokens] for row in encoded]

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Text of response tokens, up to the end token."""
        cut = [row[: row.index(self.eos_id)] if self.eos_id in row else row for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(cut, skip_special_tokens=True)]


@span("data")
def train_tokenizer(texts: list[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer, trained on the given texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>"]
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    fast: Any = PreTrainedTokenizerFast  # untyped in transformers
    made: PreTrainedTokenizerBase = fast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    return made
