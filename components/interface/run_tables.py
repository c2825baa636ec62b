"""The tables of `proximal run` and `proximal seeds`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from components.interface.cells import interval
from components.interface.fitting import Fitting
from components.interface.seeds import criteria
from components.interface.tables import plain_table
from components.measuring.metrics import KL, WIN_RATE, Metric, metrics_among, number, parts_among, rubric_metrics


def evaluation_table(evaluation: dict[str, Any]) -> Fitting:
    """Each figure of the SFT policy and of the candidate, and the difference, with their intervals.

    Where these do not fit beside each other, the difference alone keeps its interval.
    """
    return Fitting(_evaluation_table(evaluation, with_intervals=True), _evaluation_table(evaluation))


def _evaluation_table(evaluation: dict[str, Any], *, with_intervals: bool = False) -> Table:
    title = "mean [95 % interval paired by prompt]" if with_intervals else "mean; difference [95 % interval by prompt]"
    table = plain_table(f"Held-out prompts, {title}", "SFT", "candidate", "candidate - SFT")
    show = interval if with_intervals else _mean
    for metric in metrics_among(evaluation["candidate"]):
        cells = [show(evaluation[side][metric.name], metric) for side in ("sft", "candidate")]
        gain = evaluation["difference"][metric.name]
        table.add_row(metric.label, *cells, interval(gain, metric, sign="+"), style=_style(metric, gain))
    win_rate = interval(evaluation["win_rate"], WIN_RATE)
    table.add_row(WIN_RATE.label, "", *((win_rate, "") if with_intervals else ("", win_rate)))
    return table


def seeds_table(evaluations: Mapping[int, dict[str, Any]]) -> Fitting:
    """One column a seed: gold and its parts before and after, KL, and whether each claim holds.

    Where they do not fit beside each other, the interval of a difference stands in a row of its own.
    """
    return Fitting(_seeds_table(evaluations), _seeds_table(evaluations, stacked=True))


def _seeds_table(evaluations: Mapping[int, dict[str, Any]], *, stacked: bool = False) -> Table:
    table = plain_table("SFT -> candidate on held-out prompts", *(f"seed {seed}" for seed in evaluations))
    columns = list(evaluations.values())
    names = list(columns[0]["difference"])
    for metric in rubric_metrics(names):
        table.add_row(metric.label, *(_before_and_after(column, metric) for column in columns))
        if metric.name not in parts_among(names):
            gains = [interval(column["difference"][metric.name], metric, sign="+") for column in columns]
            label = f"{metric.label}, difference"
            if stacked:
                parts = [gain.partition(" ") for gain in gains]
                table.add_row(label, *(mean for mean, _, _ in parts))
                table.add_row("  its interval", *(bounds for _, _, bounds in parts))
            else:
                table.add_row(label, *gains)
    table.add_row(f"{KL.label} (nats)", *(number(column["candidate"][KL.name]["mean"], KL) for column in columns))
    for claims in zip(*(criteria(column) for column in columns), strict=True):
        table.add_row(claims[0].claim, *("yes" if claim.holds else "NO" for claim in claims))
    return table


def _mean(figure: dict[str, float], metric: Metric) -> str:
    return number(figure["mean"], metric)


def _style(metric: Metric, gain: dict[str, float]) -> str | None:
    if not metric.more_is_better:
        return None
    return "green" if gain["low"] > 0 else "red" if gain["high"] < 0 else None


def _before_and_after(evaluation: dict[str, Any], metric: Metric) -> str:
    before, after = (evaluation[side][metric.name]["mean"] for side in ("sft", "candidate"))
    return f"{number(before, metric)} -> {number(after, metric)}"
