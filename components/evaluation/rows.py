"""The rows of the report's tables: what stands in them, in which colour, on which scale it is drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.evaluation import verdict
from components.measuring.compare import Comparison
from components.measuring.metrics import (
    DISTINCT,
    ENTROPY,
    JUDGE,
    KL,
    RESPONSE_TOKENS,
    REWARD,
    WIN_RATE,
    Metric,
    metrics_among,
    rubric_metrics,
)
from components.reports.numbers import words

_BAR = 52.0  # half the width of an interval's drawing, in its own units
_STEP = 0.1  # between the light lines behind the drawing of a share
# Less of these is the known price of optimisation: a fall is worth a look, and no fault in itself.
_DIVERSITY = (ENTROPY, *DISTINCT.values())
# What stages call the figures of a scorer -> what people call them; in this order.
SCORER_FIGURES = {
    "accuracy_heldout": "Accuracy, held-out prompts",
    "longer_wins_accuracy_heldout": "Longer wins, held-out prompts",
    "margin_over_baseline_heldout": "Margin over the better rule",
    "accuracy_heldout_pairs": "Accuracy, held-out pairs of seen prompts",
    "loss_heldout": "Loss, held-out prompts",
    "expected_calibration_error": "Expected calibration error",
    "comparisons_heldout": "Comparisons, held-out prompts",
    "comparisons_heldout_pairs": "Comparisons, held-out pairs",
    "loss": "Loss, last epoch of training",
    "comparisons": "Comparisons trained on",
    "comparisons_cut_alike": "Comparisons left out: alike once cut",
    "truncated_prompts_fraction": "Prompts cut",
    "truncated_responses_fraction": "Responses cut",
}


@dataclass(frozen=True)
class Column:
    """A column of numbers as the page shows it; `decimals` None: a tick or a cross."""

    name: str
    label: str
    decimals: int | None


def tone(metric: Metric, moved: str) -> str:
    """The colour of a change, by the name of its style."""
    if metric in _DIVERSITY and moved == "fell":
        return "warn"
    return {"rose": "good", "fell": "bad"}.get(moved, "even") if metric.more_is_better else "even"


def figure_rows(comparison: Comparison, meanings: Mapping[str, str], shares: Collection[str]) -> list[dict[str, Any]]:
    """A row a figure, the win rate after the judge; the drawings of shares have one scale, each other its own."""
    rows = []
    for metric in metrics_among(comparison["sft"], meanings):
        rows.append(figure_row(metric, comparison))
        if metric is JUDGE:
            rows.append(_win_rate_row(comparison["win_rate"]))
    of_shares = [row for row in rows if row["metric"].name in shares or row["metric"] is WIN_RATE]
    widest = max(_reach(row) for row in of_shares)
    for row in rows:
        row["bar"] = (
            _bar(row["difference"], widest, _STEP) if row in of_shares else _bar(row["difference"], _reach(row))
        )
    return rows


def figure_row(metric: Metric, comparison: Comparison) -> dict[str, Any]:
    """Both sides and the difference of a figure, and how the difference looks."""
    sides = {side: comparison[side][metric.name] for side in ("sft", "candidate", "difference")}
    return {"metric": metric, **sides, **_look(metric, sides["difference"])}


def _win_rate_row(win_rate: Mapping[str, float]) -> dict[str, Any]:
    """Shown against the even chance of one half."""
    difference = {end: value - 0.5 for end, value in win_rate.items()}
    sides = {"sft": None, "candidate": win_rate, "difference": difference}
    return {"metric": WIN_RATE, **sides, **_look(WIN_RATE, difference)}


def _look(metric: Metric, difference: Mapping[str, float]) -> dict[str, Any]:
    moved = verdict.direction(difference)
    return {"moved": moved, "tone": tone(metric, moved)}


def _reach(row: Mapping[str, Any]) -> float:
    return max(abs(row["difference"]["low"]), abs(row["difference"]["high"])) or 1.0


def _bar(difference: Mapping[str, float], widest: float, step: float | None = None) -> dict[str, Any]:
    bar: dict[str, Any] = {end: round(_BAR * value / widest, 2) for end, value in difference.items()}
    lines = range(1, int(widest / step) + 1) if step else ()
    return bar | {
        "lines": [round(sign * _BAR * step * line / widest, 2) for line in lines for sign in (-1, 1)] if step else []
    }


def cycle_columns(names: Iterable[str], cycle: Mapping[str, Any]) -> list[Column]:
    """What the table of cycles shows beside the cycle's number, as far as selection wrote it down."""
    shown = (KL, REWARD, JUDGE, *rubric_metrics(names), RESPONSE_TOKENS, ENTROPY)
    labels = {KL: "KL", RESPONSE_TOKENS: "Tokens"}
    return [
        Column(metric.name, labels.get(metric) or words(metric.name), metric.decimals)
        for metric in shown
        if metric.name in cycle
    ]


def scorer_rows(scorers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The numbers of both scorers as (label, [one a scorer]); None where one of them has no such number."""
    entries = [entry for metrics in scorers.values() for entry in metrics.items()]
    found = dict.fromkeys(name for name, value in entries if _is_number(value))
    names = [name for name in SCORER_FIGURES if name in found] + [name for name in found if name not in SCORER_FIGURES]
    return [
        (SCORER_FIGURES.get(name) or words(name), [metrics.get(name) for metrics in scorers.values()]) for name in names
    ]


def groups(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Nested values as (top-level key, [(dotted key below it, plain value)]); plain ones first, unnamed."""
    single = [(name, value) for name, value in content.items() if not isinstance(value, Mapping)]
    nested = [(name, list(_flatten(value))) for name, value in content.items() if isinstance(value, Mapping)]
    return [("", single), *nested] if single else nested


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
