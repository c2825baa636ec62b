"""From per-token losses to the one number that an optimiser step descends."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from components.core.checks import require, require_bool, require_rank
from components.core.stats import masked_sum

Aggregation = Literal["token_mean", "sequence_mean", "sum_over_limit"]


def aggregate(per_token: Tensor, mask: Tensor, mode: Aggregation, denominator: float) -> Tensor:
    """One scalar of per-token losses, such that the parts of an optimiser step add up to the whole.

    token_mean: sum of the selected tokens / denominator, the number of selected tokens of the OPTIMISER STEP;
    sequence_mean: sum over rows of the row's mean / denominator, the number of rows (with a token) of the
    step; sum_over_limit: sum of the selected tokens / denominator, the step's rows times the limit of a
    response. `step_denominator` counts all three. The denominator counts all microbatches and processes: a mean of
    the means of microbatches would weigh a token more the fewer neighbours it has. A row without a token adds 0.

    Shapes: per_token and mask (B, T) -> ().
    Raises: ValueError for shapes, an unknown mode, or a denominator that is not above 0.

    Holds:
        splitting_into_microbatches_changes_nothing: the parts sum to the whole, for any split.
        permuting_the_rows_changes_nothing: the order of the batch does not matter.
        padding_changes_nothing: appending unselected slots leaves the loss as it was.
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
    """
    require_rank(2, per_token=per_token)
    require(
        0 < denominator < math.inf,
        "denominator",
        expected="the count of the step, above 0",
        found=denominator,
    )
    if mode in ("token_mean", "sum_over_limit"):
        return masked_sum(per_token, mask) / denominator
    if mode == "sequence_mean":
        row_means = masked_sum(per_token, mask, dim=1) / mask.sum(dim=1).clamp(min=1)
        return row_means.sum() / denominator
    raise _unknown(mode)


def step_denominator(mask: Tensor, mode: Aggregation, limit: int) -> float:
    """What aggregate() divides the losses of an optimiser step by.

    token_mean: the selected tokens; every token weighs alike, so a long response more (DAPO, Yu et al. 2025,
    equation 12). sequence_mean: the rows with a token; every response weighs alike, so each token of a long one less
    (GRPO, Shao et al. 2024, equation 3). sum_over_limit: all rows times the longest that a response may be, a
    constant, so that no length is favoured (Dr. GRPO, Liu et al. 2025, section 3.2).

    Shapes: mask (B, T), of the whole step -> a number.
    Units: limit in tokens.
    Raises: ValueError for shapes, a limit below 1, an unknown mode, or nothing that is selected.

    Holds:
        a_constant_loss_of_full_responses_is_itself: whatever the mode, where every response reaches the limit.
        a_constant_denominator_sees_no_length: sum_over_limit counts the same whatever the mask selects.
    """
    require_rank(2, mask=mask)
    require_bool(mask=mask)
    require(limit >= 1, "limit", expected="at least one token", found=limit)
    require(bool(mask.any()), "mask", expected="at least one True", found="none")
    if mode == "token_mean":
        return float(mask.sum())
    if mode == "sequence_mean":
        return float(mask.any(dim=1).sum())
    if mode == "sum_over_limit":
        return float(mask.shape[0] * limit)
    raise _unknown(mode)


def _unknown(mode: str) -> ValueError:
    return ValueError(f"mode: expected token_mean, sequence_mean or sum_over_limit, found {mode!r}")
