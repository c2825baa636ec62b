"""A policy that answers n times and keeps the response that a reward model likes best."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from components.core.kl import best_of_n_kl
from components.seeding import generator


class BestOfNPolicy(nn.Module):
    """A policy, a scorer, and how many responses it chooses from; `generation.generate` does the choosing.

    As a language model it is the policy that it chooses from: logits, logprobs and entropy are that policy's, as a
    response has none under the choice itself.
    """

    def __init__(self, policy: nn.Module, scorer: nn.Module, n: int) -> None:
        super().__init__()
        self.policy = policy
        self.scorer = scorer
        self.n = n

    @property
    def config(self) -> Any:
        return self.policy.config

    @property
    def vocabulary_chunk(self) -> int | None:
        return getattr(self.policy, "vocabulary_chunk", None)

    def get_output_embeddings(self) -> Any:
        return cast(Any, self.policy).get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        return self.policy(**inputs)


def kl_of_choice(policy: nn.Module) -> float:
    """KL from the responses that a policy gives to those it chooses from, at most; 0 where it does not choose.

    With the log-ratio of the policy it chooses from to a reference, averaged over the responses given, it sums up to
    the KL to that reference.

    Units: nats per sequence.
    """
    return best_of_n_kl(policy.n) if isinstance(policy, BestOfNPolicy) else 0.0


def candidate_uniforms(uniforms: Tensor, n: int) -> Tensor:
    """Uniform numbers for n responses to every prompt: the row's own, and n - 1 rows that follow from it alone.

    So the choice depends on the row's numbers only, the best of 1 is what the policy answers without a choice, and
    the first responses stay the same when n grows.

    Shapes: (B, T) -> (B * n, T), the n rows of a prompt together.
    """
    rows = []
    for row in uniforms:
        own = generator(0, "best_of_n", row.numpy().tobytes().hex())
        rows.append(torch.cat([row[None], torch.rand(n - 1, len(row), generator=own, dtype=row.dtype)]))
    return torch.cat(rows)
