"""Whether an engine has the policy's weights: its logprobs of some prompts beside ours, and how both have moved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.core.mismatch import share_moved
from components.self_checks import Check, Checks

_PROMPTS, _TOKENS = 16, 256
# A move of the policy's logprobs tells new weights from old ones where it is this many times what the engine rounds.
_CLEAR = 2.0
_UNIT = "nats a token"
_MOST_MISSED = 0.5  # 0 with new weights, 1 with old ones


class Known(NamedTuple):
    """Logprobs of the probe's tokens when the engine last was seen to have the policy's weights. Shapes: (N,) each."""

    engine: Tensor
    own: Tensor


def probe_of(prompts: list[list[int]]) -> list[list[int]]:
    """Some prompts to compare logprobs of: the first different ones with two tokens or more, up to a few hundred."""
    probe: list[list[int]] = []
    for prompt in prompts:
        if len(prompt) > 1 and prompt not in probe:
            probe.append(prompt)
        if len(probe) == _PROMPTS or sum(map(len, probe)) >= _TOKENS:
            break
    return probe


def require_own_weights(
    checks: Checks, engine: Tensor, own: Tensor, known: Known | None, bound: float, where: str, step: int = 0
) -> Known:
    """Compare an engine's logprobs of the probe with the policy's own, after its weights were brought.

    New weights are told from old ones by the move since the engine was last seen to have the right ones: it has to have
    made the policy's move. Where the policy has moved by no more than the engine rounds, old and new weights answer
    alike; the moves are then added up until they can be told apart.

    Shapes: engine and own (N,). Units: nats a token.

    Args:
        known: None at first.
        bound: on the typical gap, the root of the mean square.
    Returns:
        What to compare with the next time.
    Raises:
        TrainingError: the engine has other weights, or those of before.
    """
    checks.hold(
        Check("engine_weights", "typical gap between the engine's logprobs of some prompts and ours", bound, _UNIT),
        _typical(engine - own),
        where=where,
        fault="the engine has not the policy's weights",
        do="see that the server serves this run's model and nothing else, and where it reads the weights; a server in "
        "half precision may need a wider generation.max_probe_gap_nats_per_token; what was finished before is kept",
        step=step,
    )
    if known is None:
        return Known(engine, own)
    moved, rounding = _typical(own - known.own), _typical(known.engine - known.own)
    if not moved > max(_CLEAR * rounding, 1e-5):
        return known
    checks.hold(
        Check("engine_move", "share of the policy's move that the engine has not made", _MOST_MISSED, "of the move"),
        max(0.0, 1.0 - share_moved(known.engine, engine, known.own, own)),
        where=where,
        fault="the engine still has weights of before",
        do="look into the server's log for what it did not load; what was finished before is kept",
        step=step,
        detail=f"which is {moved:.3g} {_UNIT}",
    )
    return Known(engine, own)


def _typical(gaps: Tensor) -> float:
    """The root of the mean square; not finite where one is not."""
    return float(torch.sqrt(gaps.double().square().mean()))
