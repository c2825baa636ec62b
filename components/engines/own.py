"""Our own engine as one of rollouts: the policy that trains is the one that samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from components.engines.base import Sampled
from components.engines.generation import generate
from components.models.text import Codec


class OwnEngine:
    """Samples by `generate`, by inverting the distribution at the given numbers: the same bytes again.

    Args:
        sampled_from: gives the policy to sample from.
    """

    def __init__(
        self,
        sampled_from: Callable[[], AbstractContextManager[Any]],
        codec: Codec,
        *,
        temperature: float,
        batch_size: int,
    ) -> None:
        self._sampled_from, self._codec = sampled_from, codec
        self._temperature, self._batch_size = temperature, batch_size

    def sync(self, step: int) -> dict[str, float]:
        """Nothing to do."""
        return {}

    def sample(self, prompts: list[list[int]], uniforms: Tensor, share: slice) -> Sampled:
        """See `Engine`; its logprobs are those that it drew the tokens with."""
        logprobs = torch.zeros(uniforms[share].shape)
        with self._sampled_from() as policy:
            sequences = generate(
                *(policy, self._codec, prompts[share], uniforms[share]),
                temperature=self._temperature,
                batch_size=self._batch_size,
                logprobs=logprobs,
            )
        return Sampled(sequences, logprobs[:, : sequences.response_tokens.shape[1]])

    def close(self) -> None:
        """Nothing to do."""
