"""What people are told of a promotion's decision."""

from __future__ import annotations

from components.config import Promotion
from components.measuring.metrics import Metric
from components.promotion.decision import Decision, percent
from components.tracking.registry import ModelVersion


def opponent(champion: ModelVersion | None) -> str:
    """Whom the candidate is held against, in words."""
    return "the SFT policy" if champion is None else f"{champion.name} version {champion.number}"


def report(
    limits: Promotion,
    version: ModelVersion,
    champion: ModelVersion | None,
    decision: Decision,
    metric: Metric,
    number: int,
    confidence: float,
) -> None:
    """Say what was decided, on what, and against whom."""
    figures = decision.figures
    max_kl = limits.max_kl_nats_per_sequence
    end = f"{version.name} version {version.number}"
    measured = (
        [
            f"  {metric.name:<14}{figures[f'opponent_{metric.name}']:.3f} -> "
            f"{figures[f'candidate_{metric.name}']:.3f}: "
            f"{figures['gain']:+.3f}, {percent(confidence)} interval "
            f"[{figures['gain_low']:+.3f}, {figures['gain_high']:+.3f}]",
            f"  {'KL to SFT':<14}{figures['kl']:.2f} nats per sequence (at most {max_kl:g})",
            f"  {'length ratio':<14}{figures['length_ratio']:.2f} (at most {limits.max_length_ratio:g})",
        ]
        if figures
        else []
    )
    lines = [
        f"promotion: the candidate against {opponent(champion)}, on held-out prompts, try {number} on these",
        *measured,
        f"promoted: {end} is the champion" if decision.promoted else f"refused: {end} stays a candidate, because",
        *(f"  {reason}" for reason in decision.reasons),
    ]
    print("\n".join(lines), flush=True)
