"""Where rollouts come from another engine: how far its logprobs are from ours, and what is done about it."""

from __future__ import annotations

import torch
from torch import Tensor

from components.config import Generation
from components.core.kl import kl_estimate
from components.core.mismatch import importance_weights
from components.core.stats import masked_mean
from components.errors import TrainingError


def held_against_ours(
    old_logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor, generation: Generation, where: str
) -> tuple[dict[str, float], Tensor | None]:
    """Compare what the engine says of its samples with what our forward pass does.

    Shapes: old_logprobs, engine_logprobs and mask (B, T). Units: nats.

    Returns:
        mismatch_kl, of the engine's distribution from ours (k3, nats a token); mismatch_max, the largest gap of a
        token; with weights their mean. And the weights of the policy loss, (B, T); None for none.
    Raises:
        TrainingError: the KL is above the limit of params.
    """
    if generation.engine == "own":
        return {}, None
    gaps = torch.where(mask, (old_logprobs - engine_logprobs).abs(), 0)
    found = float(masked_mean(kl_estimate(engine_logprobs, old_logprobs, "k3"), mask))
    limit = generation.max_mismatch_kl_nats_per_token
    if not found <= limit:
        raise TrainingError(
            "the engine samples from another policy than the one that trains",
            where=f"{where}: {int((gaps > 1).sum())} of {int(mask.sum())} tokens are more than 1 nat apart, the "
            f"farthest {float(gaps.max()):.3g}",
            expected=f"a mismatch_kl of at most {limit:g} nats a token (generation.max_mismatch_kl_nats_per_token)",
            found=f"{found:.3g}",
            do="see that the server gives logprobs at the sampling temperature (--logprobs-mode processed_logprobs) "
            "and holds its weights as precisely as ours; what was finished before is kept",
        )
    figures = {"mismatch_kl": found, "mismatch_max": float(gaps.max())}
    if generation.importance_weight_cap is None:
        return figures, None
    weights = importance_weights(old_logprobs, engine_logprobs, mask, generation.importance_weight_cap)
    return {**figures, "importance_weight": float(masked_mean(weights, mask))}, weights
