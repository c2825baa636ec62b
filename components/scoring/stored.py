"""A stored sequence classifier as a part of a scorer: it reads texts with its own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from components.config.scoring import Stored
from components.errors import ConfigError
from components.models.checkpoint import from_pretrained
from components.models.codecs import codec_of
from components.models.control_texts import control_texts
from components.models.text import Codec
from components.scoring.answers import Source, require_numbers
from components.scoring.columns import Row
from components.scoring.stored_config import require_classifier, require_one_output, unusable

_ENDLESS = 2**30  # tokens: no limit


class StoredPart:
    """A sequence classifier with one output; its scores less `mean`, over `std`."""

    def __init__(self, part: Stored, key: str, mean: float, std: float, device: torch.device) -> None:
        self.source = Source(key, part.checkpoint)
        self._part = part
        self._device = device
        self.mean, self.std = mean, std

    @cached_property
    def _model(self) -> Any:
        return load_classifier(self._part, self.source.key).to(self._device)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._part, self.source.key)

    @cached_property
    def _codec(self) -> Codec:
        return codec_of(self._tokenizer, max_prompt_tokens=_ENDLESS, max_response_tokens=_ENDLESS)

    def require(self, there: Sequence[str], data: str) -> None:
        """It reads no columns."""

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """A normalised score for every response.

        Raises:
            ConfigError: it cannot be loaded, a response is longer than it reads, or a score is not finite.
        """
        encoded = [self._encode(row, response) for row, response in zip(rows, responses, strict=True)]
        order = sorted(range(len(rows)), key=lambda number: len(encoded[number]))  # like lengths together
        scores = [0.0] * len(rows)
        for start in range(0, len(order), self._part.batch_size):
            batch = order[start : start + self._part.batch_size]
            for number, score in zip(batch, self._read([encoded[number] for number in batch]), strict=True):
                scores[number] = (score - self.mean) / self.std
        return require_numbers(scores, rows, self.source)

    def _read(self, rows: list[list[int]]) -> list[float]:
        """The one output for each row of tokens. What counts is its last token, by length: an id may be padding's."""
        width = max(map(len, rows))
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0
        tokens = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        inputs = {"input_ids": tokens, "attention_mask": (torch.arange(width, device=self._device) < lengths[:, None])}
        inputs["attention_mask"] = inputs["attention_mask"].long()
        return list(_outputs(self._model, inputs, lengths))

    def _encode(self, row: Row, response: str) -> list[int]:
        """Prompt and response as the classifier reads them, its oldest turns left out where it is too long."""
        tokenizer, limit = self._tokenizer, self._part.max_tokens
        if not tokenizer.chat_template:
            return self._pair(row.prompt, response)
        (ids,) = self._codec.encode_dialogues([row.asked], [response], _ENDLESS)
        if len(ids) <= limit:
            return ids
        (least,) = self._codec.encode_dialogues(["a"], [response], _ENDLESS)
        if len(least) > limit:
            raise self._no_room(response)
        (ids,) = self._codec.encode_dialogues([row.asked], [response], limit)
        return ids

    def _pair(self, prompt: str, response: str) -> list[int]:
        tokenizer, limit = self._tokenizer, self._part.max_tokens
        prompt, response = self._bare(prompt), self._bare(response)
        ids: list[int] = tokenizer(prompt, response)["input_ids"]
        own = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        while (spare := len(ids) - limit) > 0:
            if not own:
                raise self._no_room(response)
            own = own[spare:]
            ids = tokenizer(tokenizer.decode(own), response)["input_ids"]
        return ids

    def _bare(self, text: str) -> str:
        """A text without what the tokenizer would read as its control tokens."""
        for control in control_texts(self._tokenizer):
            text = text.replace(control, "")
        return text

    def _no_room(self, response: str) -> ConfigError:
        return ConfigError(
            "a response is longer than a part of the scorer reads",
            where=f"{self.source.key}.max_tokens",
            expected="room for a response and for what the classifier's template puts around it",
            found=f"{self._part.max_tokens}, and a response of {len(response)} characters: {response[:40]!r}...",
            do="raise it, or lower language_model.max_response_tokens",
        )


def load_classifier(part: Stored, key: str) -> nn.Module:
    """The classifier of a part, in float32 and without dropout.

    Raises:
        ConfigError: it cannot be loaded, or is no sequence classifier with one output.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSequenceClassification

    require_classifier(part, key)
    try:
        config = AutoConfig.from_pretrained(part.checkpoint)
        require_one_output(part, key, (config.architectures or ["no class"])[0], config.num_labels)
        model: nn.Module = from_pretrained(AutoModelForSequenceClassification, part.checkpoint)
    except (OSError, ValueError, SafetensorError) as fault:
        raise unusable(part, key, "a folder with a Hugging Face model, or a name on the hub", str(fault)) from fault
    return model


def load_tokenizer(part: Stored, key: str) -> Any:
    """The tokenizer beside it. Raises: ConfigError, there is none."""
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer  # untyped in transformers
    try:
        return auto.from_pretrained(part.checkpoint)
    except (OSError, ValueError) as fault:
        raise unusable(part, key, "a tokenizer beside the model", str(fault)) from fault


def _outputs(model: Any, inputs: dict[str, Tensor], lengths: Tensor) -> list[float]:
    """Decoders are read at the last token of each row; encoders have a way of their own. Shapes: (B, S) -> (B,)."""
    scores: Tensor
    if hasattr(model, "score"):
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
        scores = model.score(hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1])
    else:
        scores = model(**inputs).logits
    return [float(score) for score in scores[:, 0].float()]
