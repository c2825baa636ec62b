"""A figure as a table shows it."""

from __future__ import annotations

from components.measuring.metrics import Metric, interval_text


def interval(figure: dict[str, float], metric: Metric, sign: str = "") -> str:
    """mean [low, high], the bracket escaped as rich's markup wants it."""
    return interval_text(figure, metric, sign).replace("[", "\\[")
