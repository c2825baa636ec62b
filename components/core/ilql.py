"""Q-learning for language: ILQL (Snell et al. 2022, https://arxiv.org/abs/2206.11871)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from components.core.advantages import gae
from components.core.checks import require, require_bool, require_rank, require_same_shape, require_shape
from components.core.logprobs import token_logprobs, vocabulary_logprobs
from components.core.losses import expectile_loss

# The weight of a demonstrated token is held below exp(20), where float32 still computes.
_LARGEST_LOG_WEIGHT = 20.0


class IlqlLosses(NamedTuple):
    """Four losses, each (B, T) and 0 outside of the mask, to be aggregated and added with coefficients."""

    q_loss: Tensor
    value_loss: Tensor
    cql_loss: Tensor
    awac_loss: Tensor


def ilql_losses(
    logits: Tensor,
    q_heads: Sequence[Tensor],
    target_q_heads: Sequence[Tensor],
    values: Tensor,
    tokens: Tensor,
    rewards: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    tau: float,
    beta: float,
) -> IlqlLosses:
    """The losses of ILQL for responses of a data set, each per token.

    With a_t the token, Q_i the heads, Q' = min_i of the target heads at a_t, and V_t' the value of the state
    before the next selected token (0 after the last one):
    q_loss     = sum_i (Q_i(a_t) - (r_t + gamma V_t'))^2
    value_loss = |tau - [Q' < V_t]| (Q' - V_t)^2              an expectile above 1/2 leans to the best token
    cql_loss   = sum_i -log softmax(Q_i)(a_t)                 keeps Q low where there is no data
    awac_loss  = -log pi(a_t) exp(beta (Q' - V_t))            fine-tunes the policy; beta 0 is plain SFT
    No gradient flows through targets and weights: the q_loss moves only Q, the value_loss only V, the
    awac_loss only pi.

    Shapes: logits, each of q_heads and target_q_heads (B, T, V); values, tokens, rewards and mask (B, T) ->
    four of (B, T).
    Raises: ValueError for shapes, no head or another number of target heads, gamma outside of 0 .. 1, tau
    outside of 0 .. 1 (both excluded), or a negative beta.

    Holds:
        each_loss_moves_only_its_own_part: gradients of the others are absent.
        beta_zero_is_cross_entropy: the awac_loss is then that of supervised fine-tuning.
        a_second_equal_head_doubles_q_and_cql_loss: and leaves the other two as they were.
        a_gap_is_as_if_it_were_not_there: removing the unselected tokens gives the same losses.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
    """
    require_rank(3, logits=logits)
    require_same_shape(values=values, tokens=tokens, rewards=rewards, mask=mask)
    require_shape(logits.shape[:-1], values=values)
    require_bool(mask=mask)
    heads, target_heads = len(q_heads), len(target_q_heads)
    require(heads >= 1, "q_heads", expected="at least one head", found=heads)
    require(target_heads == heads, "target_q_heads", expected=f"{heads} heads, as q_heads", found=target_heads)
    for number, head in enumerate([*q_heads, *target_q_heads]):
        require_same_shape(logits=logits, **{f"q_head_{number}": head})
    require(beta >= 0, "beta", expected="a number not below 0", found=beta)

    # With lambda 0 a return of GAE is the one-step target, r + gamma V', with GAE's care for gaps and ends.
    targets = gae(rewards, values.detach(), mask, gamma, 0.0).returns[mask]
    # From here on only the selected tokens, (n,) and (n, V): the rest can do no harm.
    taken, selected_values = tokens[mask], values[mask]
    target_q = torch.stack([_of_token(head[mask], taken) for head in target_q_heads]).amin(dim=0).detach()
    log_weight = (beta * (target_q - selected_values.detach())).clamp(max=_LARGEST_LOG_WEIGHT)
    q_loss = torch.stack([(_of_token(head[mask], taken) - targets).square() for head in q_heads]).sum(dim=0)
    cql_loss = torch.stack([-token_logprobs(head[mask], taken) for head in q_heads]).sum(dim=0)
    value_loss = expectile_loss(target_q - selected_values, tau)
    awac_loss = -token_logprobs(logits[mask], taken) * log_weight.exp()
    return IlqlLosses(*(_at_selected(loss, mask) for loss in (q_loss, value_loss, cql_loss, awac_loss)))


def guided_logits(logits: Tensor, q: Tensor, v: Tensor, beta: float) -> Tensor:
    """Logits of the decoding policy, proportional to pi * exp(beta (Q - V)): log pi + beta (Q - V).

    V is the same for every token, so it shifts the result without changing the distribution. For q take the
    minimum of the target heads.

    Shapes: logits and q (..., V), v (...) -> (..., V).
    Raises: ValueError for shapes or a negative beta.

    Holds:
        beta_zero_decodes_the_policy: softmax of the result is pi.
        guided_odds_are_multiplied_by_exp_beta_q: p(a)/p(b) = pi(a)/pi(b) exp(beta (Q_a - Q_b)).
    """
    require_same_shape(logits=logits, q=q)
    require_shape(logits.shape[:-1], v=v)
    require(beta >= 0, "beta", expected="a number not below 0", found=beta)
    return vocabulary_logprobs(logits) + beta * (q - v.unsqueeze(-1))


def polyak(target_params: Sequence[Tensor], params: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """The next target parameters, a little nearer to the trained ones: alpha * param + (1 - alpha) * target.

    Called once an optimiser step. The same average moves a reference policy.

    Shapes: as many tensors in params as in target_params, of equal shapes -> new tensors without gradient.
    Raises: ValueError for differing numbers or shapes, or an alpha outside of 0 .. 1.

    Holds:
        alpha_one_copies_and_alpha_zero_keeps: the two ends.
        k_steps_leave_one_minus_alpha_to_the_k: of the first distance, for params that stay.
    """
    require(0 <= alpha <= 1, "alpha", expected="0 .. 1", found=alpha)
    require(
        len(params) == len(target_params),
        "params",
        expected=f"{len(target_params)} tensors",
        found=len(params),
    )
    for target, param in zip(target_params, params, strict=True):
        require_same_shape(target_param=target, param=param)
    return [
        alpha * param.detach() + (1 - alpha) * target.detach()
        for target, param in zip(target_params, params, strict=True)
    ]


def _of_token(per_vocabulary: Tensor, tokens: Tensor) -> Tensor:
    return per_vocabulary.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)


def _at_selected(selected: Tensor, mask: Tensor) -> Tensor:
    return selected.new_zeros(mask.shape).masked_scatter(mask, selected)
