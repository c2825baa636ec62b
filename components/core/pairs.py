"""Pairs of responses to learn preferences from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.core.checks import require, require_float, require_rank


class BestAndWorst(NamedTuple):
    """Of each prompt's responses: the numbers of the best and the worst among all responses, and whether they tie."""

    best: Tensor
    worst: Tensor
    is_tie: Tensor


def best_and_worst(scores: Tensor, group_size: int) -> BestAndWorst:
    """The responses with the highest and the lowest score of each group; the first one where several have it.

    best_g = argmax_i s_i, worst_g = argmin_i s_i over the group's i; with two responses the pairs of Guo et al. 2024
    (OAIF, section 3).

    Shapes: scores (B,), the group_size responses of one prompt one after the other -> three of (B / group_size,).
    Raises: ValueError for shapes, group_size below 2, or a B that it does not divide.

    Holds:
        the_best_is_not_below_the_worst: and it is a tie exactly where they are equal.
        a_pair_stays_within_its_group: whatever the other groups' scores.
    """
    require_rank(1, scores=scores)
    require_float(scores=scores)
    require(group_size >= 2, "group_size", expected="at least 2 responses a prompt", found=group_size)
    whole = scores.shape[0] % group_size == 0
    require(whole, "scores", expected=f"a multiple of group_size ({group_size})", found=scores.shape[0])
    groups = scores.reshape(-1, group_size)
    begins = torch.arange(groups.shape[0], device=scores.device) * group_size
    is_tie = groups.amax(dim=1) == groups.amin(dim=1)
    return BestAndWorst(begins + groups.argmax(dim=1), begins + groups.argmin(dim=1), is_tie)
