"""Surrogates beside PPO's: the ratio of a whole response (GSPO), and weights that are held, not tokens (CISPO)."""

from __future__ import annotations

import torch
from torch import Tensor

from components.core.checks import LARGEST_LOG_RATIO, require, require_bool, require_rank, require_same_shape
from components.core.losses import PolicyLoss


def gspo_loss(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """Group sequence policy optimisation (Zheng et al. 2025, equations 5 and 7), with advantages of tokens (13 and 14).

    s = exp(mean over the row's tokens of new - old),  s_t = sg[s] * pi(t) / sg[pi(t)],
    L_t = max(-A_t s_t, -A_t clip(s_t, 1 - clip_low, 1 + clip_high))
    The ratio is one of the whole response, the geometric mean of its tokens': its value is the same at all of them,
    its gradient at each that of the token's own logprob. A response is clipped as a whole or not at all. s moves less
    than the ratio of a token, so that its clip range is a smaller one (3e-4 and 4e-4 in the paper). To be aggregated
    by sequence_mean. clipped says where the clipped branch is strictly the larger one.

    Shapes: new_logprobs, old_logprobs, advantages and mask (B, T) -> three of (B, T).
    Units: nats.
    Raises: ValueError for shapes, a clip_low outside of 0 .. 1, or a negative clip_high.

    Holds:
        with_one_advantage_a_row_it_is_the_loss_of_sequences: loss and gradient are those of max(-A s, -A clip(s)).
        of_one_token_it_is_ppo: a response of one token has the token's ratio.
        equal_policies_have_ratio_one_and_nothing_clipped: and loss -A.
        advantages_and_old_logprobs_carry_no_gradient: they are data.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
    """
    log_ratio, advantages = _selected(new_logprobs, old_logprobs, advantages, mask, clip_low, clip_high)
    of_row = log_ratio.detach().sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    value = torch.where(mask, of_row.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO), 0)
    ratio = (value + (log_ratio - log_ratio.detach())).exp()
    unclipped_loss = -advantages * ratio
    clipped_loss = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(unclipped_loss, clipped_loss)
    return PolicyLoss(loss, ratio.detach(), clipped_loss > unclipped_loss)


def cispo_loss(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float | None,
    clip_high: float,
) -> PolicyLoss:
    """The policy gradient with clipped importance weights (CISPO; MiniMax-M1, Chen et al. 2025, equations 4 and 5).

    ratio = exp(new - old),  L = -sg[clip(ratio, 1 - clip_low, 1 + clip_high)] A new
    The weight carries no gradient, so that a token beyond the range still teaches, with a weight that is held: PPO
    drops it. clip_low None sets no bound below, as the paper does. clipped says where the weight was held.

    Shapes: new_logprobs, old_logprobs, advantages and mask (B, T) -> three of (B, T).
    Units: nats.
    Raises: ValueError for shapes, a clip_low outside of 0 .. 1, or a negative clip_high.

    Holds:
        within_the_range_the_gradient_is_that_of_the_unclipped_surrogate: d(-A ratio) = -A ratio d new.
        outside_the_range_the_gradient_is_held_and_not_zero: -A times the bound.
        advantages_and_old_logprobs_carry_no_gradient: they are data.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
    """
    lowest = 1.0 if clip_low is None else clip_low
    log_ratio, advantages = _selected(new_logprobs, old_logprobs, advantages, mask, lowest, clip_high)
    ratio = log_ratio.detach().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    weight = ratio.clamp(1 - lowest, 1 + clip_high)
    return PolicyLoss(-weight * advantages * torch.where(mask, new_logprobs, 0), ratio, weight != ratio)


def _selected(
    new_logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Log ratio and advantages, 0 outside of the mask, of arguments that make sense."""
    require_rank(2, new_logprobs=new_logprobs)
    require_same_shape(new_logprobs=new_logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    require_bool(mask=mask)
    require(0 <= clip_low <= 1, "clip_low", expected="0 .. 1", found=clip_low)
    require(clip_high >= 0, "clip_high", expected="a number not below 0", found=clip_high)
    return torch.where(mask, new_logprobs - old_logprobs.detach(), 0), torch.where(mask, advantages.detach(), 0)
