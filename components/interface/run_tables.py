"""The tables of `proximal run` and `proximal seeds`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from components.interface.cells import interval
from components.interface.seeds import criteria
from components.measuring.metrics import KL, WIN_RATE, Metric, metrics_among, number, parts_among, rubric_metrics


def evaluation_table(evaluation: dict[str, Any]) -> Table:
    """Each figure of the SFT policy and of the candidate, and the difference, with their intervals."""
    title = "Held-out prompts, mean [95 % interval paired by prompt]"
    # It wastes no columns: the table is wide, and terminals are not.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("")
    for column in ("SFT", "candidate", "candidate - SFT"):
        table.add_column(column, justify="right")
    for metric in metrics_among(evaluation["candidate"]):
        cells = [interval(evaluation[side][metric.name], metric) for side in ("sft", "candidate")]
        gain = evaluation["difference"][metric.name]
        table.add_row(metric.label, *cells, interval(gain, metric, sign="+"), style=_style(metric, gain))
    table.add_row(WIN_RATE.label, "", interval(evaluation["win_rate"], WIN_RATE), "")
    return table


def seeds_table(evaluations: Mapping[int, dict[str, Any]]) -> Table:
    """One column a seed: gold and its parts before and after, KL, and whether each claim holds."""
    table = Table(title="SFT -> candidate on held-out prompts", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for seed in evaluations:
        table.add_column(f"seed {seed}", justify="right")
    columns = list(evaluations.values())
    names = list(columns[0]["difference"])
    for metric in rubric_metrics(names):
        table.add_row(metric.label, *(_before_and_after(column, metric) for column in columns))
        if metric.name not in parts_among(names):
            gains = (interval(column["difference"][metric.name], metric, sign="+") for column in columns)
            table.add_row(f"{metric.label}, difference", *gains)
    table.add_row(f"{KL.label} (nats)", *(number(column["candidate"][KL.name]["mean"], KL) for column in columns))
    for claims in zip(*(criteria(column) for column in columns), strict=True):
        table.add_row(claims[0].claim, *("yes" if claim.holds else "NO" for claim in claims))
    return table


def _style(metric: Metric, gain: dict[str, float]) -> str | None:
    if not metric.more_is_better:
        return None
    return "green" if gain["low"] > 0 else "red" if gain["high"] < 0 else None


def _before_and_after(evaluation: dict[str, Any], metric: Metric) -> str:
    before, after = (evaluation[side][metric.name]["mean"] for side in ("sft", "candidate"))
    return f"{number(before, metric)} -> {number(after, metric)}"
