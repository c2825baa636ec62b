"""How much better a token or response was than expected: with a value model (GAE) or without (RLOO, GRPO)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.core.checks import (
    require,
    require_bool,
    require_float,
    require_rank,
    require_same_shape,
    require_shape,
)


class AdvantagesAndReturns(NamedTuple):
    """advantages and returns, each (B, T) and 0 outside of the mask; returns = advantages + values inside."""

    advantages: Tensor
    returns: Tensor


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> AdvantagesAndReturns:
    """Generalised advantage estimation (Schulman et al. 2015, equation 16), and the returns to fit values to.

    delta_t = r_t + gamma V_t' - V_t,  A_t = delta_t + gamma lambda A_t',  return_t = A_t + V_t,
    where t' is the NEXT SELECTED token: state is carried over gaps inside of a row (tokens that the policy
    did not write, for instance). After the last selected token V and A are 0: a response has an end, and
    there is no bootstrap behind it. Whiten afterwards: returns come from the advantages as they are here.

    Shapes: rewards, values and mask (B, T) -> two of (B, T).
    Raises: ValueError for shapes, or a gamma or gae_lambda outside of 0 .. 1.

    Holds:
        lambda_zero_is_one_step_td: A_t = r_t + gamma V_(t+1) - V_t.
        lambda_one_is_reward_to_go_minus_value: A_t = sum_k gamma^k r_(t+k) - V_t, whatever the later values.
        a_gap_is_as_if_it_were_not_there: removing the unselected tokens gives the same advantages.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
        padding_changes_nothing: on the left or on the right, in any amount.
        permuting_the_rows_permutes_the_result: no row sees another.
    """
    require_rank(2, rewards=rewards)
    require_same_shape(rewards=rewards, values=values, mask=mask)
    require_bool(mask=mask)
    require(values.shape[1] >= 1, "values", expected="at least one token", found="none")
    require(0 <= gamma <= 1, "gamma", expected="0 .. 1", found=gamma)
    require(0 <= gae_lambda <= 1, "gae_lambda", expected="0 .. 1", found=gae_lambda)
    next_value = values.new_zeros(values.shape[0])
    next_advantage = values.new_zeros(values.shape[0])
    backwards = []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * next_advantage
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
        backwards.append(advantage)
    advantages = torch.where(mask, torch.stack(backwards[::-1], dim=1), 0)
    return AdvantagesAndReturns(advantages, torch.where(mask, advantages + values, 0))


def rloo(scores: Tensor, group_size: int) -> Tensor:
    """REINFORCE leave-one-out: the score minus the mean score of the OTHER responses to the same prompt.

    A_i = s_i - 1/(G-1) sum_(j != i) s_j   (Kool et al. 2019; Ahmadian et al. 2024, equation 8)

    Shapes: scores (B,), the group_size responses of one prompt one after the other -> (B,).
    Raises: ValueError for shapes, group_size below 2, or a B that it does not divide.

    Holds:
        advantages_of_a_group_sum_to_zero: so a prompt as a whole pushes nowhere.
        rloo_is_the_distance_from_the_mean_times_g_over_g_minus_one: A_i = G/(G-1) (s_i - mean).
        a_group_of_equal_scores_has_advantage_zero: exactly, in every dtype and for every group size.
    """
    groups = _groups(scores, group_size)
    mean_of_others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return _nothing_where_all_are_equal(groups, groups - mean_of_others).reshape(-1)


def grpo(scores: Tensor, group_size: int, eps: float = 1e-6) -> Tensor:
    """Group-relative advantage: the distance of a score from the mean of its group, in standard deviations.

    A_i = (s_i - mean) / (std + eps), std with G - 1   (Shao et al. 2024, section 4.1.2)

    Shapes: scores (B,), the group_size responses of one prompt one after the other -> (B,).
    Raises: ValueError for shapes, group_size below 2, a B that it does not divide, or an eps that is not
    above 0.

    Holds:
        advantages_of_a_group_sum_to_zero: so a prompt as a whole pushes nowhere.
        a_group_of_equal_scores_has_advantage_zero: exactly, in every dtype and for every group size.
    """
    require(eps > 0, "eps", expected="a number above 0", found=eps)
    groups = _groups(scores, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    advantages = centred / (groups.std(dim=1, keepdim=True) + eps)
    return _nothing_where_all_are_equal(groups, advantages).reshape(-1)


def dr_grpo(scores: Tensor, group_size: int) -> Tensor:
    """Group-relative advantage that is not divided by the group's spread: the distance of a score from the mean.

    A_i = s_i - mean   (Dr. GRPO, Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.2)
    Divided by its standard deviation, a group whose scores hardly differ would count as much as any other.

    Shapes: scores (B,), the group_size responses of one prompt one after the other -> (B,).
    Raises: ValueError for shapes, group_size below 2, or a B that it does not divide.

    Holds:
        advantages_of_a_group_sum_to_zero: so a prompt as a whole pushes nowhere.
        rloo_is_dr_grpo_times_g_over_g_minus_one: the two differ by a constant alone.
        a_group_of_equal_scores_has_advantage_zero: exactly, in every dtype and for every group size.
    """
    groups = _groups(scores, group_size)
    return _nothing_where_all_are_equal(groups, groups - groups.mean(dim=1, keepdim=True)).reshape(-1)


def groups_that_differ(scores: Tensor, group_size: int) -> Tensor:
    """Whether a prompt's responses have scores that differ: where all are equal, no response is better than another.

    max - min > 0   (the groups that dynamic sampling keeps: DAPO, Yu et al. 2025, equation 11, for any score)

    Shapes: scores (B,), the group_size responses of one prompt one after the other -> (B / group_size,) bool.
    Raises: ValueError for shapes, group_size below 2, or a B that it does not divide.

    Holds:
        a_group_that_does_not_differ_has_no_advantage: neither rloo, grpo nor dr_grpo gives it one.
    """
    groups = _groups(scores, group_size)
    return groups.amax(dim=1) > groups.amin(dim=1)


def spread(per_sequence: Tensor, mask: Tensor) -> Tensor:
    """Give each selected token the number of its sequence; 0 outside of the mask.

    Shapes: per_sequence (B,), mask (B, T) -> (B, T).
    Raises: ValueError for shapes or a mask that is not bool.
    """
    require_rank(2, mask=mask)
    require_bool(mask=mask)
    require_shape(mask.shape[:1], per_sequence=per_sequence)
    return torch.where(mask, per_sequence.unsqueeze(1), 0)


def _nothing_where_all_are_equal(groups: Tensor, advantages: Tensor) -> Tensor:
    """Rounding leaves equal float32 numbers a last bit from their mean: noise, which is then divided by noise."""
    return torch.where(groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True), 0, advantages)


def _groups(scores: Tensor, group_size: int) -> Tensor:
    require_rank(1, scores=scores)
    require_float(scores=scores)
    require(group_size >= 2, "group_size", expected="at least 2 responses a prompt", found=group_size)
    whole = scores.shape[0] % group_size == 0
    require(whole, "scores", expected=f"a multiple of group_size ({group_size})", found=scores.shape[0])
    return scores.reshape(-1, group_size)
