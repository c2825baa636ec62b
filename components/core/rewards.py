"""From the score of a sequence to the reward of each token.

Score: the reward model's number for a whole response. Reward: per token, the KL penalty included.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from components.core.checks import (
    require,
    require_bool,
    require_float,
    require_integer,
    require_rank,
    require_same_shape,
    require_shape,
)
from components.core.masks import last_true_index

MissingEos = Literal["none", "replace", "subtract"]
EnsembleMode = Literal["mean", "min", "mean_minus_std"]


def per_token_rewards(scores: Tensor, kl: Tensor, kl_coef: float, mask: Tensor) -> Tensor:
    """Reward of each token: the KL penalty, and the score at the last token of the response.

    r_t = -kl_coef * kl_t + [t is the last True of the row] * score;  0 outside of the mask
    (Ziegler et al. 2019, equation 2, spread over the tokens). The score sits ON the last token, the EOS where
    there is one, not on the slot after it.

    Shapes: scores (B,), kl (B, T), mask (B, T) -> (B, T).
    Units: kl in nats per token.
    Raises: ValueError for shapes, a negative kl_coef, or a row without a True.

    Holds:
        rewards_of_a_row_sum_to_score_minus_kl: sum_t r_t = score - kl_coef * sum_t kl_t.
        nan_outside_the_mask_is_harmless: what is not selected is not read.
        padding_changes_nothing: appending unselected slots leaves the rewards as they were.
    """
    require_rank(2, kl=kl)
    require_same_shape(kl=kl, mask=mask)
    require_bool(mask=mask)
    require_shape(kl.shape[:1], scores=scores)
    require(kl_coef >= 0, "kl_coef", expected="a number not below 0", found=kl_coef)
    last = last_true_index(mask)
    is_last = torch.arange(mask.shape[1], device=mask.device) == last.unsqueeze(1)
    return torch.where(mask, -kl_coef * kl, 0) + torch.where(is_last, scores.unsqueeze(1), 0)


def clip_scores(scores: Tensor, limit: float) -> Tensor:
    """Scores held within -limit .. limit, before the KL penalty is added.

    Shapes: scores (B,) -> (B,).
    Raises: ValueError for another rank or a limit that is not above 0.
    """
    require_rank(1, scores=scores)
    require(limit > 0, "limit", expected="a number above 0", found=limit)
    return scores.clamp(-limit, limit)


def missing_eos(scores: Tensor, ended: Tensor, mode: MissingEos, value: float) -> Tensor:
    """Scores of responses that did not end by themselves: left, replaced by value, or lowered by value.

    replace: value (LMHP: -1);  subtract: score - value (TRL: 1);  none: the score. Ended responses keep their
    score.

    Shapes: scores (B,), ended (B,) bool -> (B,).
    Raises: ValueError for shapes, an unknown mode, or a negative value to subtract, which would be a bonus.

    Holds:
        ended_responses_keep_their_score: whatever the mode.
    """
    require_rank(1, scores=scores)
    require_same_shape(scores=scores, ended=ended)
    require_bool(ended=ended)
    if mode == "none":
        return scores
    if mode == "replace":
        return torch.where(ended, scores, value)
    if mode == "subtract":
        require(value >= 0, "value", expected="a penalty not below 0, as it is subtracted", found=value)
        return torch.where(ended, scores, scores - value)
    raise ValueError(f"mode: expected none, replace or subtract, found {mode!r}")


def length_penalty(lengths: Tensor, limit: int, buffer: int, factor: float) -> Tensor:
    """Penalty to be ADDED to the score of a long response: 0, falling to -factor over the last buffer tokens.

    penalty = -factor * clip(length - (limit - buffer), 0, buffer) / buffer
    (the soft overlong punishment of DAPO, Yu et al. 2025, equation 13).

    Shapes: lengths (B,) integer -> (B,) float32.
    Units: lengths, limit and buffer in tokens.
    Raises: ValueError for shapes, a buffer outside of 1 .. limit, or a negative factor.

    Holds:
        the_penalty_falls_from_zero_to_minus_factor: 0 through limit - buffer, -factor from limit on, never
            rising.
    """
    require_rank(1, lengths=lengths)
    require_integer(lengths=lengths)
    require(1 <= buffer <= limit, "buffer", expected=f"1 .. limit ({limit})", found=buffer)
    require(factor >= 0, "factor", expected="a number not below 0", found=factor)
    exceeded = (lengths - (limit - buffer)).clamp(0, buffer)
    return exceeded.to(torch.float32) * (-factor / buffer)


def ensemble_score(scores: Tensor, mode: EnsembleMode, k: float) -> Tensor:
    """One score of several reward models, as a guard against over-optimising one of them (Coste et al. 2023).

    mean;  min (worst case);  mean_minus_std: mean - k * std over the models, std with M - 1.

    Shapes: scores (M, B) -> (B,).
    Raises: ValueError for shapes, no model, an unknown mode, or for mean_minus_std fewer than 2 models or a
    negative k.

    Holds:
        min_is_never_above_mean: nor is mean_minus_std.
        the_order_of_the_models_does_not_matter: for every mode.
    """
    require_rank(2, scores=scores)
    require_float(scores=scores)
    models = scores.shape[0]
    require(models >= 1, "scores", expected="at least one reward model", found=models)
    if mode == "mean":
        return scores.mean(dim=0)
    if mode == "min":
        return scores.amin(dim=0)
    if mode == "mean_minus_std":
        require(models >= 2, "scores", expected="at least 2 reward models for a std", found=models)
        require(k >= 0, "k", expected="a number not below 0", found=k)
        return scores.mean(dim=0) - k * scores.std(dim=0)
    raise ValueError(f"mode: expected mean, min or mean_minus_std, found {mode!r}")
