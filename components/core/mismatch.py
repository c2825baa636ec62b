"""Where another engine samples than the one that trains: the weights that mend it, and whether its weights moved."""

from __future__ import annotations

import torch
from torch import Tensor

from components.core.checks import LARGEST_LOG_RATIO, require, require_bool, require_rank, require_same_shape


def importance_weights(logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Truncated importance weights of tokens that an engine sampled, for the policy as the trainer computes it.

    w = min(exp(log pi - log mu), cap), where mu is the engine's distribution (Ionides 2008; of the mismatch between
    sampler and trainer: Yao et al. 2025). Multiplied into a token's loss they turn its mean over what mu sampled into
    its mean over pi, but for what the cap takes, which bounds the variance.

    Shapes: logprobs, engine_logprobs and mask (B, T) -> (B, T), 1 outside of the mask; they carry no gradient.
    Units: nats; a ratio of probabilities.
    Raises: ValueError for shapes, or a cap that is not above 0.

    Holds:
        equal_logprobs_have_weight_one: if the cap allows it.
        the_weighted_mean_is_that_of_the_policy: E_mu[w f] = E_pi[f], by enumeration, where nothing is capped.
        nan_outside_the_mask_is_harmless: it is not looked at.
    """
    require_rank(2, logprobs=logprobs)
    require_same_shape(logprobs=logprobs, engine_logprobs=engine_logprobs, mask=mask)
    require_bool(mask=mask)
    require(cap > 0, "cap", expected="a number above 0", found=cap)
    log_ratio = torch.where(mask, (logprobs - engine_logprobs).detach(), 0)
    ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    return torch.where(mask, ratio.clamp(max=cap), 1)


def share_moved(before: Tensor, after: Tensor, own_before: Tensor, own_after: Tensor) -> float:
    """How much of the trainer's move an engine made: 1 with the new weights, 0 with the old ones.

    With the move d = own_after - own_before of the trainer's logprobs for some tokens, the least-squares share of it in
    the engine's: <after - before, d> / <d, d>. What the engine rounds alike before and after cancels.

    Shapes: four of (N,).
    Units: nats; a share.
    Raises: ValueError for shapes, or where the trainer's logprobs have not moved.

    Holds:
        an_engine_that_stands_still_has_share_zero: whatever it rounds.
        a_constant_error_of_the_engine_changes_nothing: it is in both of its answers.
    """
    require_rank(1, before=before)
    require_same_shape(before=before, after=after, own_before=own_before, own_after=own_after)
    move = own_after.double() - own_before.double()
    squared = float(move.square().sum())
    require(squared > 0, "own_after", expected="other logprobs than own_before", found="the same")
    return float(((after.double() - before.double()) * move).sum()) / squared
