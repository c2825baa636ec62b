"""Scalar models: what a reward model, a judge and a value model are."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from components.errors import ConfigError


class ScalarModel(nn.Module):
    """A Hugging Face sequence classifier with one label, read at every token.

    Its head stays in float32 however the trunk is held: it is small, and a sum in half precision would cost digits.

    As a reward model it is read at the last token of the response, as a value model before each of them. `mean` and
    `std` (in the stored config) normalise its output.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier
        if classifier.score.weight.dtype in (torch.bfloat16, torch.float16):
            classifier.score.float()

    @property
    def config(self) -> Any:
        return self.classifier.config

    @property
    def _no_split_modules(self) -> Any:
        """The names of its layers' classes, as Hugging Face's models tell them to who shards a model layer by layer."""
        return self.classifier._no_split_modules

    def tie_weights(self) -> None:
        """Share again what is shared, after weights were replaced; called by who loads a model in shards."""
        self.classifier.tie_weights()

    def forward(self, **inputs: Any) -> Tensor:
        """The normalised scalar at every position.

        Args:
            inputs: as the Hugging Face model takes them: input_ids (B, S), position_ids (B, S), ...
        Returns:
            (B, S)
        """
        hidden = self.classifier.base_model(use_cache=False, **inputs).last_hidden_state
        config, head = self.classifier.config, self.classifier.score
        scalars: Tensor = head(hidden.to(head.weight.dtype)).squeeze(-1).float()
        normalised: Tensor = (scalars - config.score_mean) / config.score_std
        return normalised


def scalar_class(policy: Any) -> Any:
    """The sequence classifier of transformers that has the trunk of this causal language model.

    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoModelForSequenceClassification

    causal_class = type(policy).__name__
    # By the config's class: Gemma 3's text and vision models share a name that only the latter's classifier carries on.
    found = AutoModelForSequenceClassification._model_mapping.get(type(policy.config), None)
    if found is None or not hasattr(transformers, causal_class):
        raise ConfigError(
            "this architecture has no scalar form",
            where="language_model.checkpoint",
            expected="an architecture with a ...ForSequenceClassification class in transformers",
            found=causal_class,
            do="choose a checkpoint of another architecture, such as Llama, Qwen, Mistral or GPT-2",
        )
    return found
