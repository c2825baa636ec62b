"""Which tokens of a response count."""

from __future__ import annotations

import torch
from torch import Tensor

from components.core.checks import require, require_bool, require_integer, require_rank, require_shape


def response_mask(tokens: Tensor, eos_id: int) -> Tensor:
    """True for each response token through the first EOS, which counts; False for what was sampled after it.

    mask_t = no EOS among tokens_0 .. tokens_(t-1)

    Shapes: tokens (B, T) integer -> (B, T) bool.
    Raises: ValueError for another rank or a dtype that is not integer.

    Holds:
        the_first_eos_counts_and_nothing_after_it: a second EOS, or the padding, is outside of the mask.
        a_response_without_eos_counts_whole: a truncated response is True throughout.
    """
    require_rank(2, tokens=tokens)
    require_integer(tokens=tokens)
    is_eos = tokens == eos_id
    eos_before = is_eos.cumsum(dim=1) - is_eos.long()
    return eos_before == 0


def last_true_index(mask: Tensor) -> Tensor:
    """Index of the last True of each row: the token that the score belongs to.

    Shapes: mask (B, T) bool -> (B,) long.
    Raises: ValueError for another shape or dtype, and naming the rows without a True.

    Holds:
        the_last_true_is_found_behind_a_gap: an interior False does not end the row.
    """
    require_rank(2, mask=mask)
    require_bool(mask=mask)
    empty_rows = (~mask.any(dim=1)).nonzero().flatten().tolist()
    require(not empty_rows, "mask", expected="a True in every row", found=f"none in row(s) {empty_rows}")
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).amax(dim=1)


def without_truncated(mask: Tensor, ended: Tensor) -> Tensor:
    """The mask without the responses that were cut off at the limit: they have no end token, and no fair score.

    mask_t and ended   (overlong filtering: DAPO, Yu et al. 2025, section 3.4)

    Shapes: mask (B, T) bool, ended (B,) bool -> (B, T) bool.
    Raises: ValueError for shapes or dtypes.

    Holds:
        a_truncated_response_has_no_token_that_counts: and one that ended keeps all of its own.
    """
    require_rank(2, mask=mask)
    require_bool(mask=mask, ended=ended)
    require_shape(mask.shape[:1], ended=ended)
    return mask & ended.unsqueeze(1)
