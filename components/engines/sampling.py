"""Drawing tokens from a distribution by numbers given beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TrainingError

_WHOLE = 2.0**50  # a number in [0, 1) times this is rounded to less than this


def draw_uniforms(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), one per response token. Shapes: (count, length)."""
    return torch.rand(count, length, generator=generator, dtype=torch.float64)


def draw(logits: Tensor, uniforms: Tensor, temperature: float, sound: Tensor, logprobs: Tensor | None = None) -> Tensor:
    """Invert the distribution function at the given numbers; at temperature 0 take the likeliest token.

    The function is summed up in whole numbers: a sum of floating-point numbers depends on its order, which on a GPU
    differs from run to run.

    Args:
        sound: becomes False, in place, once there is no distribution to draw from; what is drawn then is any token.
            `require_sound` reads it at the end, so that no step waits for a GPU.
        logprobs: filled, in place, with those of what is drawn, in nats at the temperature; 0 at temperature 0.

    Shapes: (B, V), (B,), (), (), (B,) -> (B,).
    """
    if temperature == 0:
        likeliest, drawn = logits.max(dim=-1)
        sound &= likeliest.isfinite().all()
        if logprobs is not None:
            logprobs.zero_()
        return drawn
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    sound &= ~probabilities[:, 0].isnan().any()  # softmax of a row with one makes all of them so
    distribution = (probabilities * _WHOLE).long().cumsum(dim=-1)
    thresholds = (uniforms[:, None] * distribution[:, -1:]).long()
    drawn = torch.searchsorted(distribution, thresholds, right=True).squeeze(1)
    drawn = drawn.clamp(max=logits.shape[-1] - 1)
    if logprobs is not None:
        logprobs.copy_(probabilities.gather(1, drawn[:, None]).squeeze(1).log())
    return drawn


def require_sound(sound: Tensor) -> None:
    """See that every token was drawn from a distribution. Raises: TrainingError."""
    if not bool(sound):
        raise TrainingError(
            "responses cannot be sampled",
            where="the policy's logits",
            expected="finite numbers",
            found="logits that are not finite",
            do="look at the policy's weights: go on from the last good checkpoint with a smaller learning rate",
        )
