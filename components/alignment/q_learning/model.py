"""What is trained: policy, value head and Q heads as one module, so that one forward and one optimiser serve all."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.core.ilql import polyak
from components.models.guided import Head, QHeads, output_and_hidden
from components.passes.forward import position_ids
from components.passes.sequences import Sequences
from components.training.sharding import whole_weights


class QLearnerOutput(NamedTuple):
    """At each response token, of the state before it.

    Shapes: logits and each of q_heads (B, T, V), values (B, T), hidden (B, T, hidden).
    """

    logits: Tensor
    q_heads: list[Tensor]
    values: Tensor
    hidden: Tensor


class QLearner(nn.Module):
    """The policy with its value head and Q heads; the target heads are not trained and stand outside."""

    def __init__(self, policy: Any, value_head: Head, q_heads: QHeads) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = value_head
        self.q_heads = q_heads

    @property
    def _no_split_modules(self) -> Any:
        """See `components.models.scalar_model.ScalarModel`."""
        return self.policy._no_split_modules

    def tie_weights(self) -> None:
        """See `components.models.scalar_model.ScalarModel`."""
        self.policy.tie_weights()

    def of_policy(self, **inputs: Any) -> Any:
        """What the policy alone gives, asked by way of the whole: in shards only that gathers all of them."""
        return self(inputs)

    def forward(self, sequences: Sequences | dict[str, Any]) -> Any:
        """A `QLearnerOutput`; of inputs in Hugging Face's form what the policy gives."""
        if isinstance(sequences, dict):
            return self.policy(**sequences)
        mask = sequences.mask
        output, hidden = output_and_hidden(
            self.policy,
            input_ids=sequences.tokens,
            attention_mask=mask.long(),
            position_ids=position_ids(mask),
            use_cache=False,
            logits_to_keep=sequences.response_tokens.shape[1] + 1,
        )
        hidden = hidden[:, :-1]
        values = self.value_head(hidden).squeeze(-1)
        return QLearnerOutput(output.logits[:, :-1], self.q_heads(hidden), values, hidden)


@torch.no_grad()
def move_targets(target_q_heads: QHeads, q_heads: QHeads, alpha: float) -> None:
    """Bring the target heads a little nearer to the trained ones; called after every optimiser step.

    The trained ones may lie in shards, target heads are whole in every process.
    """
    targets = list(target_q_heads.parameters())
    for target, moved in zip(targets, polyak(targets, whole_weights(q_heads), alpha), strict=True):
        target.copy_(moved)
