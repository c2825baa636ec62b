"""Where rollouts come from another engine: how far its logprobs are from ours, and what is done about it."""

from __future__ import annotations

import torch
from torch import Tensor

from components.config import Generation
from components.core.kl import kl_estimate
from components.core.mismatch import importance_weights
from components.core.stats import masked_mean
from components.self_checks import Check, Checks


def held_against_ours(
    checks: Checks,
    old_logprobs: Tensor,
    engine_logprobs: Tensor,
    mask: Tensor,
    generation: Generation,
    where: str,
    step: int = 0,
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
    checks.hold(
        Check(
            "mismatch",
            "mismatch_kl between the engine's samples and the policy that trains",
            generation.max_mismatch_kl_nats_per_token,
            "nats a token",
        ),
        found,
        where=where,
        fault="the engine samples from another policy than the one that trains",
        do="see that the server gives logprobs at the sampling temperature (--logprobs-mode processed_logprobs) and "
        "holds its weights as precisely as ours (generation.max_mismatch_kl_nats_per_token is the limit); what was "
        "finished before is kept",
        step=step,
        detail=f"{int((gaps > 1).sum())} of {int(mask.sum())} tokens more than 1 nat apart, the farthest "
        f"{float(gaps.max()):.3g}",
    )
    figures = {"mismatch_kl": found, "mismatch_max": float(gaps.max())}
    if generation.importance_weight_cap is None:
        return figures, None
    weights = importance_weights(old_logprobs, engine_logprobs, mask, generation.importance_weight_cap)
    return {**figures, "importance_weight": float(masked_mean(weights, mask))}, weights
