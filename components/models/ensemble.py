"""Several scalar models as one scorer, as a guard against over-optimising any one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.core.rewards import EnsembleMode, ensemble_score


class Ensemble(nn.Module):
    """Members whose scores are normalised alike, so that they can be compared, and combined into one."""

    def __init__(self, members: Sequence[nn.Module], mode: EnsembleMode, std_coef: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mode = mode
        self.std_coef = std_coef

    @property
    def config(self) -> Any:
        """The first member's: all are of one architecture."""
        return self.members[0].config

    def forward(self, **inputs: Any) -> Tensor:
        """The combined scalar at every position; see `ScalarModel.forward`. Shapes: (B, S)."""
        scalars = torch.stack([member(**inputs).flatten() for member in self.members])
        return ensemble_score(scalars, self.mode, self.std_coef).reshape(inputs["input_ids"].shape)
