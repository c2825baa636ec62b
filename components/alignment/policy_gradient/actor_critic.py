"""Policy and value model as one trainable module, so that one forward, one loss and one optimiser serve both."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from components.models.scalar_model import ScalarModel
from components.passes.forward import prepared, response_logprobs_and_entropy, response_values
from components.passes.sequences import Packed, Sequences


class ActorCriticOutput(NamedTuple):
    """Shapes: (B, T) each. Units: nats, nats, normalised score. Without a value model all values are 0."""

    logprobs: Tensor
    entropy: Tensor
    values: Tensor


class ActorCritic(nn.Module):
    """The policy (actor) and the value model (critic), with no weights in common; RLOO and GRPO have no critic."""

    def __init__(self, policy: nn.Module, value_model: ScalarModel | None) -> None:
        super().__init__()
        self.policy = policy
        self.value_model = value_model

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return (self.policy,) if self.value_model is None else (self.policy, self.value_model)

    @property
    def _no_split_modules(self) -> list[str]:
        """See `ScalarModel`."""
        return sorted({name for model in self.models for name in cast(Any, model)._no_split_modules or ()})

    def tie_weights(self) -> None:
        """See `ScalarModel`."""
        for model in self.models:
            cast(Any, model).tie_weights()

    def of_policy(self, **inputs: Any) -> Any:
        """What the policy alone gives, asked by way of the whole: in shards only that gathers all of them."""
        return self(inputs)

    def forward(self, sequences: Sequences | Packed | dict[str, Any], temperature: float = 1.0) -> Any:
        """An `ActorCriticOutput`; of inputs in Hugging Face's form what the policy gives."""
        if isinstance(sequences, dict):
            return self.policy(**sequences)
        sequences = prepared(sequences, *self.models)
        logprobs, entropy = response_logprobs_and_entropy(self.policy, sequences, temperature)
        if self.value_model is None:
            return ActorCriticOutput(logprobs, entropy, torch.zeros_like(logprobs))
        return ActorCriticOutput(logprobs, entropy, response_values(self.value_model, sequences))
