"""The losses: unreduced, one number a token or a pair; aggregate() of core.aggregation is the one way to a scalar.

What is given as data (old logprobs, advantages, old values, returns, reference logprobs) carries no gradient,
even when the tensor handed in does.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from components.core.checks import LARGEST_LOG_RATIO, require, require_bool, require_rank, require_same_shape

DpoForm = Literal["sigmoid", "ipo"]


class PolicyLoss(NamedTuple):
    """Each (B, T). Outside of the mask loss is 0, ratio 1 and clipped False; ratio carries no gradient."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


class ValueLoss(NamedTuple):
    """loss (B, T), 0 outside of the mask; clipped (B, T) bool, False outside."""

    loss: Tensor
    clipped: Tensor


def policy_loss(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> PolicyLoss:
    """The clipped surrogate of PPO (Schulman et al. 2017, equation 7), with an asymmetric clip range.

    ratio = exp(new - old),  L = max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))
    With dual_clip c (Ye et al. 2020, equation 5), for A < 0 also L = min(L, -A c), so that one token whose
    probability exploded cannot make an unbounded loss. clipped says where the clipped branch is strictly the
    larger one. The log ratio is held within -20 .. 20.

    Shapes: new_logprobs, old_logprobs, advantages and mask (B, T) -> three of (B, T).
    Units: nats.
    Raises: ValueError for shapes, a clip_low outside of 0 .. 1, a negative clip_high, or a dual_clip not
    above 1.

    Holds:
        at_ratio_one_the_gradient_is_the_policy_gradient: E[dL] = -d E[A], by enumeration of a tiny
            vocabulary.
        equal_policies_have_ratio_one_and_nothing_clipped: and loss -A.
        outside_the_clip_range_the_gradient_is_zero: where moving on would raise the surrogate.
        the_loss_bounds_the_unclipped_surrogate: L >= -A ratio without dual clip.
        advantages_and_old_logprobs_carry_no_gradient: they are data.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
    """
    require_rank(2, new_logprobs=new_logprobs)
    require_same_shape(new_logprobs=new_logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    require_bool(mask=mask)
    require(0 <= clip_low <= 1, "clip_low", expected="0 .. 1", found=clip_low)
    require(clip_high >= 0, "clip_high", expected="a number not below 0", found=clip_high)
    log_ratio = torch.where(mask, new_logprobs - old_logprobs.detach(), 0)
    ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    advantages = torch.where(mask, advantages.detach(), 0)
    unclipped_loss = -advantages * ratio
    clipped_loss = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(unclipped_loss, clipped_loss)
    if dual_clip is not None:
        require(dual_clip > 1, "dual_clip", expected="a number above 1", found=dual_clip)
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
    return PolicyLoss(loss, ratio.detach(), clipped_loss > unclipped_loss)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, value_clip_range: float | None
) -> ValueLoss:
    """Half the squared distance of the value from the return, clipped around the value of the rollout.

    L = 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2);  without c: 1/2 (V - R)^2
    (the pessimistic clipping of OpenAI's baselines and LMHP). clipped says where the clipped branch is
    strictly larger.

    Shapes: values, old_values, returns and mask (B, T) -> two of (B, T).
    Raises: ValueError for shapes or a value_clip_range that is not above 0.

    Holds:
        within_the_clip_range_nothing_is_clipped: and the loss is that of an unclipped value, to the bit.
        the_clipped_loss_is_never_below_the_unclipped: clipping is pessimistic.
        returns_and_old_values_carry_no_gradient: they are data.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
    """
    require_rank(2, values=values)
    require_same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    require_bool(mask=mask)
    values = torch.where(mask, values, 0)
    old_values = torch.where(mask, old_values.detach(), 0)
    returns = torch.where(mask, returns.detach(), 0)
    unclipped = (values - returns).square()
    if value_clip_range is None:
        return ValueLoss(0.5 * unclipped, torch.zeros_like(mask))
    require(value_clip_range > 0, "value_clip_range", expected="a number above 0", found=value_clip_range)
    clipped_values = values.clamp(old_values - value_clip_range, old_values + value_clip_range)
    clipped = (clipped_values - returns).square()
    return ValueLoss(0.5 * torch.maximum(unclipped, clipped), clipped > unclipped)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: float = 0.0) -> Tensor:
    """Negative log-likelihood of a comparison: -log sigmoid(chosen - rejected - margin).

    (Bradley and Terry 1952; the margin of Touvron et al. 2023, equation 2.)

    Shapes: chosen and rejected, scores, (B,) -> (B,).
    Raises: ValueError for shapes.

    Holds:
        probabilities_of_both_orders_sum_to_one: exp(-loss(a, b)) + exp(-loss(b, a)) = 1 without a margin.
        a_shift_of_both_scores_changes_nothing: only the difference counts.
    """
    require_rank(1, chosen=chosen)
    require_same_shape(chosen=chosen, rejected=rejected)
    return -logsigmoid(chosen - rejected - margin)


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    form: DpoForm = "sigmoid",
) -> Tensor:
    """Direct preference optimisation, from logprobs of whole responses (sums over their tokens).

    h = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)
    sigmoid: -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), e = label_smoothing, the share of labels
    assumed flipped (Rafailov et al. 2023, equation 7; Mitchell 2023);
    ipo: (h - 1 / (2 beta))^2 (Azar et al. 2023, equation 17).

    Shapes: four of (B,) -> (B,).
    Units: nats per response.
    Raises: ValueError for shapes, a beta that is not above 0, a label_smoothing outside of 0 .. 0.5 (0.5
    excluded) or given with ipo, or an unknown form.

    Holds:
        a_policy_equal_to_the_reference_has_loss_log_two: for sigmoid, whatever beta.
        swapping_the_pair_swaps_the_smoothing: with e as the weight of the swapped pair's loss.
        dpo_is_bradley_terry_on_implicit_rewards: with rewards beta * (log pi - log pi_ref).
        reference_logprobs_carry_no_gradient: they are data.
    """
    require_rank(1, policy_chosen=policy_chosen)
    require_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
    )
    require(beta > 0, "beta", expected="a number above 0", found=beta)
    require(0 <= label_smoothing < 0.5, "label_smoothing", expected="0 .. 0.5, below 0.5", found=label_smoothing)
    margin = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected).detach()
    if form == "sigmoid":
        as_labelled, flipped = -logsigmoid(beta * margin), -logsigmoid(-beta * margin)
        return (1 - label_smoothing) * as_labelled + label_smoothing * flipped
    if form == "ipo":
        require(
            label_smoothing == 0,
            "label_smoothing",
            expected="0 with ipo, which has none",
            found=label_smoothing,
        )
        return (margin - 1 / (2 * beta)).square()
    raise ValueError(f"form: expected sigmoid or ipo, found {form!r}")


def expectile_loss(diff: Tensor, tau: float) -> Tensor:
    """Squared loss that weighs underestimates by tau and overestimates by 1 - tau.

    L = |tau - [diff < 0]| diff^2,  diff = target - prediction   (Kostrikov et al. 2021, equation 5)

    Shapes: diff (...) -> (...).
    Raises: ValueError for a tau outside of 0 .. 1 (both excluded).

    Holds:
        tau_one_half_is_half_the_square: an expectile of 0.5 is the mean.
        the_minimiser_rises_with_tau: the tau-expectile of a sample lies between its minimum and maximum,
            rising.
    """
    require(0 < tau < 1, "tau", expected="0 .. 1, both excluded", found=tau)
    return (tau - (diff < 0).to(diff.dtype)).abs() * diff.square()
