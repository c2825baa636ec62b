"""The tables of `proximal compare`: methods side by side, one table a seed."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from components.interface.cells import interval
from components.interface.fitting import Fitting
from components.measuring.metrics import JUDGE, KL, WIN_RATE, metric_that_counts, number, rubric_metrics

Figures = dict[tuple[str, int], dict[str, Any]]  # (method, seed) -> what `proximal run --figures` writes
_COSTS = {"sampled_tokens": "Tokens sampled", "trained_tokens": "Tokens trained on", "seconds": "Seconds of training"}


def comparison_tables(figures: Figures) -> list[Fitting]:
    """A table a seed: SFT and what each method made of it, on held-out prompts, with intervals, and what it took.

    Where not all methods fit beside each other, the table goes on below.
    """
    return [
        _fitting(seed, {method: content for (method, other), content in figures.items() if other == seed})
        for seed in dict.fromkeys(seed for _, seed in figures)
    ]


def _fitting(seed: int, runs: dict[str, dict[str, Any]]) -> Fitting:
    columns = [("SFT", _of_sft(next(iter(runs.values())))), *((method, _of(run)) for method, run in runs.items())]
    forms = []
    for width in range(len(columns), 0, -1):
        parts = [columns[start : start + width] for start in range(0, len(columns), width)]
        forms.append(Group(*(_table(f"seed {seed}" if not i else "", part) for i, part in enumerate(parts))))
    return Fitting(*forms)


def _table(title: str, columns: list[tuple[str, dict[str, str]]]) -> Table:
    table = Table(title=title or None, title_justify="left", box=box.MARKDOWN)
    table.add_column("")
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for label in columns[0][1]:
        table.add_row(label, *(cells[label] for _, cells in columns))
    return table


def _of(run: dict[str, Any]) -> dict[str, str]:
    """Label -> cell of a method."""
    evaluation, cost = run["evaluation"], run["cost"]
    truth = metric_that_counts(evaluation["sft"])
    gain, kl = evaluation["difference"][truth.name]["mean"], evaluation["candidate"]["kl"]["mean"]
    taken = {label: cost.get(name) for name, label in _COSTS.items()}
    return _measured(evaluation["candidate"]) | {
        WIN_RATE.label: interval(evaluation["win_rate"], WIN_RATE),
        f"{truth.label}, gain": number(gain, truth, "+"),
        # What best-of-n is the measure of.
        f"{truth.label}, gain per nat": f"{gain / kl:+.3f}" if kl > 0 else "",
        **{label: "" if value is None else f"{value:,.0f}" for label, value in taken.items()},
    }


def _of_sft(run: dict[str, Any]) -> dict[str, str]:
    """The same labels: what is measured of a policy alone, and nothing beyond."""
    return dict.fromkeys(_of(run), "") | _measured(run["evaluation"]["sft"])


def _measured(figures: dict[str, Any]) -> dict[str, str]:
    metrics = (*rubric_metrics(figures), JUDGE, KL)
    return {metric.label: interval(figures[metric.name], metric) for metric in metrics}
