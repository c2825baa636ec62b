"""What an engine of rollouts is: it has the policy's weights, and answers prompts with them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from components.passes.sequences import Sequences


class Sampled(NamedTuple):
    """Responses as an engine gave them.

    Args:
        sequences: the prompts with their responses.
        logprobs: the engine's own of the response tokens, at the sampling temperature, padded with 0. Shapes: (B, T).
            Units: nats.
    """

    sequences: Sequences
    logprobs: Tensor


class Engine(Protocol):
    """Samples from the policy alone: no top-k, no top-p, no penalty. Every process of a stage calls all of it."""

    def sync(self, step: int) -> dict[str, float]:
        """Have the weights that the policy has now; called before the rollouts of every iteration.

        Args:
            step: the iteration's number, from 1, for what is recorded.
        Returns:
            Figures of it.
        Raises:
            ProximalError: it does not, or has other weights afterwards.
        """

    def sample(self, prompts: list[list[int]], uniforms: Tensor, share: slice) -> Sampled:
        """One response to every prompt of this process's share.

        Args:
            prompts: token ids of all processes' prompts.
            uniforms: (B, T) named random numbers, of all prompts; T is the longest response. What is sampled follows
                from them, as far as the engine repeats itself.
        Raises:
            ProximalError: it gives none.
        """

    def close(self) -> None:
        """Let go of what it holds; also after an error."""
