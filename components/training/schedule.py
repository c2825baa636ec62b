"""What an optimiser moves, by names, and how its learning rates go: one place for all that trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

# From a step (or iteration), counted from 0, to what the learning rate is multiplied by.
Factor = Callable[[int], float]


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate, and how it goes."""

    parameters: Iterable[nn.Parameter]
    learning_rate: float
    factor: Factor


def make_optimizer(groups: Mapping[str, ParameterGroup], weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the named groups, in their order; frozen parameters are left out."""
    return torch.optim.AdamW(
        [
            {
                "name": name,
                "params": [parameter for parameter in group.parameters if parameter.requires_grad],
                "lr": group.learning_rate,
            }
            for name, group in groups.items()
        ],
        weight_decay=weight_decay,
        fused=True,
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, groups: Mapping[str, ParameterGroup], done: int = 0
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rates of the groups that the optimiser was made of, set for the next step.

    Args:
        done: how many steps (or iterations) lie behind.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = groups[group["name"]].learning_rate
    factors = [groups[group["name"]].factor for group in optimizer.param_groups]
    return LambdaLR(optimizer, factors, last_epoch=done - 1)


def warmup_and_decay(total: int, warmup_fraction: float) -> Factor:
    """Linear warm-up from 0, then linear decay to 0 after the last of `total` steps."""
    warmup = math.ceil(warmup_fraction * total)
    return lambda step: (step + 1) / warmup if step < warmup else max(0, total - step) / max(1, total - warmup)


def warmup_then(warmup: int, decay_until: int | None = None) -> Factor:
    """Linear warm-up from 0, then 1, or linear decay from 1 to 0 at step `decay_until`, where there is one."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if decay_until is None:
            return 1.0
        return max(0.0, (decay_until - step) / (decay_until - warmup))

    return factor


def still_until(start: int, factor: Factor) -> Factor:
    """0 before step `start`, then `factor` of the same step."""
    return lambda step: 0.0 if step < start else factor(step)
