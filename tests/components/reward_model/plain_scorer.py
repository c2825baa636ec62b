"""A stored reward model or judge without any code of ours around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from components.models.loading import load_codec
from components.place import Place


class PlainScorer:
    """The stored classifier through Hugging Face alone, one sequence a forward."""

    def __init__(self, stage: str, member: str = "") -> None:
        from transformers import AutoModelForSequenceClassification

        folder = Path("artifacts") / stage / "model" / member
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.codec = load_codec(Place().sft / "policy")

    @torch.no_grad()
    def of_tokens(self, tokens: list[int]) -> float:
        """Normalised, read at the last token."""
        config = self.model.config
        return (float(self.model(torch.tensor([tokens])).logits[0, 0]) - config.score_mean) / config.score_std

    def __call__(self, prompt: str, response: str) -> float:
        (prompt_row,) = self.codec.encode_prompts([prompt])
        (response_row,) = self.codec.encode_responses([response])
        return self.of_tokens(prompt_row + response_row)
