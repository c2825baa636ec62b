"""Drawing tokens from a distribution by numbers given beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

_WHOLE = 2.0**50  # a number in [0, 1) times this is rounded to less than this


def uniforms(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), one per response token. Shapes: (count, length)."""
    return torch.rand(count, length, generator=generator, dtype=torch.float64)


def draw(logits: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """Invert the distribution function at the given numbers.

    The function is summed up in whole numbers: a sum of floating-point numbers depends on its order, which on a GPU
    differs from run to run.

    Shapes: (B, V), (B,) -> (B,).
    """
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    distribution = (probabilities * _WHOLE).long().cumsum(dim=-1)
    thresholds = (numbers[:, None] * distribution[:, -1:]).long()
    drawn = torch.searchsorted(distribution, thresholds, right=True).squeeze(1)
    return drawn.clamp(max=logits.shape[-1] - 1)  # logits that are not finite are for the caller to find
