"""What people are told of a promotion's decision while it is made."""

from __future__ import annotations

from components.measuring.metrics import interval_text, number
from components.promotion.decision import Decision, Limits, demand, percent
from components.tracking.registry import ModelVersion


def opponent(champion: ModelVersion | None) -> str:
    """Whom the candidate is held against, in words."""
    return "the SFT policy" if champion is None else f"{champion.name} version {champion.number}"


def report(limits: Limits, version: ModelVersion, champion: ModelVersion | None, decision: Decision) -> None:
    """Say what was decided, on what, and against whom."""
    end = f"{version.name} version {version.number}"
    lines = [
        f"promotion: the candidate against {opponent(champion)}, on held-out prompts, try {limits.attempt} on these",
        *_measured(limits, decision.figures),
        f"promoted: {end} is the champion" if decision.promoted else f"refused: {end} stays a candidate, because",
        *(f"  {reason}" for reason in decision.reasons),
    ]
    print("\n".join(lines), flush=True)


def _measured(limits: Limits, figures: dict[str, float]) -> list[str]:
    if not figures:
        return []
    metric = limits.metric
    old, new = (number(figures[f"{whose}_{metric.name}"], metric) for whose in ("opponent", "candidate"))
    gain = {"mean": figures["gain"], "low": figures["gain_low"], "high": figures["gain_high"]}
    low = number(figures["gain_low_asked"], metric, "+")
    return [
        f"  {metric.name:<14}{old} -> {new}: {interval_text(gain, metric, '+')}, {percent(limits.confidence)} interval",
        f"  {'asked':<14}{demand(limits)} is {low}, {'above' if figures['gain_low_asked'] > 0 else 'not above'} 0",
        f"  {'KL to SFT':<14}{figures['kl']:.2f} nats per sequence (at most {limits.max_kl:g})",
        f"  {'length ratio':<14}{figures['length_ratio']:.2f} (at most {limits.max_length_ratio:g})",
    ]
