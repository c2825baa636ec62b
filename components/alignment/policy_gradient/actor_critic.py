"""Policy and value model as one trainable module, so that one forward, one loss and one optimiser serve both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.models.loading import ScalarModel
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

    def forward(self, sequences: Sequences | Packed, temperature: float) -> ActorCriticOutput:
        sequences = prepared(sequences, *self.models)
        logprobs, entropy = response_logprobs_and_entropy(self.policy, sequences, temperature)
        if self.value_model is None:
            return ActorCriticOutput(logprobs, entropy, torch.zeros_like(logprobs))
        return ActorCriticOutput(logprobs, entropy, response_values(self.value_model, sequences))
