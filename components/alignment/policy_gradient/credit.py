"""From scores to advantages: what each token of a rollout is given credit for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from components.alignment.policy_gradient.rollouts import Rollouts
from components.config import OnlineDpo, PolicyGradientMethod
from components.core.advantages import spread
from components.core.kl import kl_estimate
from components.core.masks import without_truncated
from components.core.rewards import clip_scores, length_penalty, missing_eos, per_token_rewards
from components.core.stats import RunningMoments, masked_sum, whiten
from components.errors import TrainingError

# From rewards, values and the response mask, (B, T) each, to advantages and returns, (B, T) each.
Estimate = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Credit(NamedTuple):
    """Shapes: scores (B,), as they entered the rewards; advantages and returns (B, T)."""

    scores: Tensor
    advantages: Tensor
    returns: Tensor


def assign_credit(
    rollouts: Rollouts, kl_coef: float, moments: RunningMoments, settings: PolicyGradientMethod, estimate: Estimate
) -> tuple[Credit, RunningMoments]:
    """Scores become rewards, rewards become advantages.

    Args:
        moments: of all scores of the run so far, for running scaling.
        estimate: the method's own.
    Returns:
        The credit, and the moments with this batch's scores in them.
    Raises:
        TrainingError: there is nothing to learn from, as all responses are left out.
    """
    scores, moments = _shaped_scores(rollouts, moments, settings)
    mask = rollouts.sequences.response_mask
    kl = torch.zeros_like(rollouts.old_logprobs)
    if settings.kl_placement == "reward":
        kl = kl_estimate(rollouts.old_logprobs, rollouts.ref_logprobs, settings.kl_estimator)
    rewards = per_token_rewards(scores, kl, kl_coef, mask)
    advantages, returns = estimate(rewards, rollouts.values, mask)
    if settings.whiten_advantages:
        advantages = whiten(advantages, learned_from(rollouts, settings))
    return Credit(scores, advantages, returns), moments


def estimate_by_group(of_group: Callable[[Tensor, int], Tensor], responses_per_prompt: int) -> Estimate:
    """Advantages of whole responses among those to the same prompt, given to all of their tokens; no returns (0).

    Args:
        of_group: from the responses' returns (B,), a prompt's together, and their number to their advantages (B,).
    """

    def of_responses(rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        advantages = spread(of_group(masked_sum(rewards, mask, dim=1), responses_per_prompt), mask)
        return advantages, torch.zeros_like(advantages)

    return of_responses


def learned_from(rollouts: Rollouts, settings: PolicyGradientMethod) -> Tensor:
    """Which response tokens the losses count: all of them, or those of responses that have an end token.

    A truncated response is left out of the value loss too, as out of entropy and KL in the loss: the values are the
    baseline of what the policy learns from. Among the scores of its prompt's other responses its own still counts.

    Shapes: (B, T) bool.
    Raises:
        TrainingError: none, or a single one, which cannot be whitened.
    """
    mask = rollouts.sequences.response_mask
    if not settings.mask_truncated:
        return mask
    mask = without_truncated(mask, rollouts.ended)
    if int(mask.sum()) < 2:
        raise TrainingError(
            "all responses of an iteration were cut off at the limit, and mask_truncated leaves them out",
            where="mask_truncated",
            expected="responses with an end token",
            found=f"{int(rollouts.ended.sum())} of {len(rollouts.ended)}",
            do="raise language_model.max_response_tokens, or set mask_truncated: false and missing_eos: replace",
        )
    return mask


def shaped(rollouts: Rollouts, settings: PolicyGradientMethod | OnlineDpo) -> Tensor:
    """The scores after the missing-end rule and the length penalty. Shapes: (B,)."""
    scores = missing_eos(rollouts.scores, rollouts.ended, settings.missing_eos, settings.missing_eos_value)
    if settings.length_penalty is not None:
        limits = settings.length_penalty
        lengths = rollouts.sequences.response_mask.sum(dim=1)
        scores = scores + length_penalty(lengths, limits.limit_tokens, limits.buffer_tokens, limits.factor)
    return scores


def _shaped_scores(
    rollouts: Rollouts, moments: RunningMoments, settings: PolicyGradientMethod
) -> tuple[Tensor, RunningMoments]:
    """Shaped, then scaled, then clipped."""
    scores = shaped(rollouts, settings)
    moments = moments.update(scores)
    if settings.score_scaling != "none":
        shift = moments.mean if settings.score_scaling == "running_mean_std" else 0.0
        scores = (scores - shift) / (moments.std + 1e-8)
    return (scores if settings.score_clip is None else clip_scores(scores, settings.score_clip)), moments
