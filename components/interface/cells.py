"""A figure as a table shows it."""

from __future__ import annotations

from components.measuring.metrics import Metric


def number(value: float, metric: Metric, sign: str = "") -> str:
    """With the metric's decimals; `sign="+"` for a difference."""
    return f"{value:{sign}.{metric.decimals}f}"


def interval(figure: dict[str, float], metric: Metric, sign: str = "") -> str:
    """mean [low, high], the bracket escaped as rich's markup wants it."""
    mean, low, high = (number(figure[key], metric, sign) for key in ("mean", "low", "high"))
    return f"{mean} \\[{low}, {high}]"
