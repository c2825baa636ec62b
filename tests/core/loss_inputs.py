"""What the tests of losses are drawn from and compared with."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from components.core.losses import policy_loss

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)
to_six_digits = partial(assert_close, rtol=0, atol=6e-7)  # printed with six digits
surrogate = partial(policy_loss, clip_low=0.2, clip_high=0.2, dual_clip=None)
SEEDS = st.integers(0, 2**31)
NAN, INF = float("nan"), float("inf")


def normal(seed: int, *shape: int, count: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def some_mask(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def all_true(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)
