"""Random numbers: every stream has a name, so that no two parts of the system share one by accident."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed for the stream that `names` describes, e.g. `derive_seed(params.seed, "ppo", cycle, iteration)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream that `names` describes."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
