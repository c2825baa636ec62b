"""The tables of `proximal compare`: methods side by side, one table a seed."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from components.interface.cells import interval
from components.measuring.metrics import JUDGE, KL, WIN_RATE, metric_that_counts, rubric_metrics

Figures = dict[tuple[str, int], dict[str, Any]]  # (method, seed) -> what `proximal run --figures` writes
_COSTS = {"sampled_tokens": "Tokens sampled", "trained_tokens": "Tokens trained on", "seconds": "Seconds of training"}


def comparison_tables(figures: Figures) -> list[Table]:
    """A table a seed: SFT and what each method made of it, on held-out prompts, with intervals, and what it took."""
    return [
        _table(seed, {method: content for (method, other), content in figures.items() if other == seed})
        for seed in dict.fromkeys(seed for _, seed in figures)
    ]


def _table(seed: int, runs: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"seed {seed}", title_justify="left", box=box.MARKDOWN)
    table.add_column("")
    for column in ("SFT", *runs):
        table.add_column(column, justify="right")
    evaluations = [content["evaluation"] for content in runs.values()]
    figures = [evaluations[0]["sft"], *(evaluation["candidate"] for evaluation in evaluations)]
    for metric in (*rubric_metrics(figures[0]), JUDGE, KL):
        table.add_row(metric.label, *(interval(figure[metric.name], metric) for figure in figures))
    table.add_row(WIN_RATE.label, "", *(interval(evaluation["win_rate"], WIN_RATE) for evaluation in evaluations))
    truth = metric_that_counts(evaluations[0]["sft"])
    gains = [evaluation["difference"][truth.name]["mean"] for evaluation in evaluations]
    table.add_row(f"{truth.label}, gain", "", *(f"{gain:+.{truth.decimals}f}" for gain in gains))
    # What best-of-n is the measure of.
    nats = [evaluation["candidate"]["kl"]["mean"] for evaluation in evaluations]
    per_nat = [f"{gain / kl:+.3f}" if kl > 0 else "" for gain, kl in zip(gains, nats, strict=True)]
    table.add_row(f"{truth.label}, gain per nat", "", *per_nat)
    for name, label in _COSTS.items():
        costs = [content["cost"].get(name) for content in runs.values()]
        table.add_row(label, "", *("" if cost is None else f"{cost:,.0f}" for cost in costs))
    return table
