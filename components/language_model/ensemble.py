"""Several scalar models as one scorer, as a guard against over-optimising any one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.core.rewards import Ensemble as Mode
from components.core.rewards import ensemble_score


class Ensemble(nn.Module):
    """Members whose scores are normalised alike, so that they can be compared, and combined into one."""

    def __init__(self, members: Sequence[nn.Module], mode: Mode, std_coef: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mode = mode
        self.std_coef = std_coef

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """The combined scalar at every position. Shapes: all arguments and the result (B, S)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        scalars = torch.stack([member(**inputs).flatten() for member in self.members])
        return ensemble_score(scalars, self.mode, self.std_coef).reshape(input_ids.shape)
