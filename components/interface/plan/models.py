"""The models of a pipeline as shapes alone, made inside `live_bytes.counted`: what each adds is what it takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from components.config import LanguageModel
from components.interface.plan.live_bytes import real
from components.models.adapter_shape import AdapterShape
from components.models.checkpoint_tokenizer import bad_checkpoint
from components.models.holding import attention_options, dtype_of, held
from components.models.loading import scratch_shape
from components.models.scalar_model import ScalarModel


class Trunk(nn.Module):
    """What a scalar model reads: a language model without its vocabulary, and a head."""

    def __init__(self, base_model: Any) -> None:
        super().__init__()
        config = base_model.config
        config.score_mean, config.score_std = 0.0, 1.0
        self.base_model, self.config = base_model, config
        self.score = nn.Linear(config.get_text_config().hidden_size, 1, bias=False)


class Models:
    """Makes the models that roles need: of whole weights each its own, of adapters one base for all."""

    def __init__(self, settings: LanguageModel, shape: Any) -> None:
        self._settings = settings
        self._shape = shape
        self._base: Any = None
        self._adapted: list[Any] = []  # the weights of the first adapter

    def policy(self, *, trained: bool) -> Any:
        """A causal language model."""
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM  # untyped in transformers
        if self._settings.adapter is None:
            return self._held(auto.from_config(self._shape, **self._options(trained)), trained)
        if self._base is None:
            with real(), torch.device("meta"):  # where peft leaves dtypes alone
                model = auto.from_config(self._shape, **self._options(trained=False))
                self._adapt(model.requires_grad_(False), trained)
            self._base = self._held(model.to_empty(device="cpu"), trained=True)
            self._base.tie_weights()
            self._adapted = [weight for name, weight in model.named_parameters() if "lora_" in name]
        else:  # whichever adapter is passed through, its activations are as large: the others only lie there
            for weight in self._adapted:
                more = nn.Parameter(torch.empty_like(weight), requires_grad=trained)
                self._base.register_parameter(f"lora_{len(list(self._base.parameters()))}", more)
        return self._base

    def scalar(self, *, trained: bool) -> ScalarModel:
        """A reward model, a judge or a value model."""
        from transformers import AutoModel

        auto: Any = AutoModel  # untyped in transformers
        if self._settings.adapter is not None:
            return ScalarModel(Trunk(self.policy(trained=trained).base_model))
        return ScalarModel(Trunk(self._held(auto.from_config(self._shape, **self._options(trained)), trained)))

    def _options(self, trained: bool) -> dict[str, Any]:
        return {"dtype": dtype_of(self._settings, trained=trained), **attention_options(self._settings)}

    def _held(self, model: Any, trained: bool) -> Any:
        return held(model, self._settings, trained=trained).train()

    def _adapt(self, model: Any, trained: bool) -> None:
        """Put one adapter into a base, its weights in float32."""
        from peft import inject_adapter_in_model

        assert self._settings.adapter is not None
        config = AdapterShape.of(self._settings.adapter, model).config(model)
        inject_adapter_in_model(config, model, "first")
        for path, weight in model.named_parameters():
            if "lora_" in path:
                weight.data = weight.data.to(torch.float32)
                weight.requires_grad_(trained)


def shape_of(settings: LanguageModel, vocabulary: int) -> Any:
    """The config of the policy's architecture; no weights are read.

    Raises:
        ConfigError: there is none where params say.
    """
    from transformers import AutoConfig

    if settings.checkpoint == "scratch":
        return scratch_shape(settings, vocabulary)
    try:
        return AutoConfig.from_pretrained(settings.checkpoint, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError) as fault:
        raise bad_checkpoint(settings, fault) from fault
