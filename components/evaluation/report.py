"""The report: one page that stands alone, made of the files that the stages wrote."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation import verdict
from components.evaluation.samples import scores_of
from components.measuring.compare import Comparison
from components.measuring.metrics import (
    ENTROPY,
    GOLD,
    JUDGE,
    KL,
    RESPONSE_TOKENS,
    REWARD,
    WIN_RATE,
    Metric,
    metric_that_counts,
    metrics_among,
    parts_among,
    rubric_metrics,
)
from components.measuring.weak_scorers import weakness
from components.reports.page import render_page

TEMPLATE = Path(__file__).with_name("report.html.jinja")
_BAR = 52.0  # half the width of an interval's drawing, in its own units


@dataclass(frozen=True)
class Findings:
    """All that the page shows. Without kinds `by_kind` is empty; without a rubric its figures are absent."""

    comparison: Comparison
    by_kind: Mapping[str, Comparison]
    samples: Sequence[Mapping[str, Any]]
    cycles: Sequence[Mapping[str, Any]]
    selection: Mapping[str, Any]
    scorers: Mapping[str, Mapping[str, Any]]  # "Reward model", "Judge" -> metrics.json
    data: Mapping[str, Any]
    params: Mapping[str, Any]
    meanings: Mapping[str, str]  # of the rubric's parts
    prompts: int
    samples_per_prompt: int


def render(findings: Findings, figures: Mapping[str, Path]) -> str:
    """The HTML of the report, with the figures inside it."""
    filters: dict[str, Callable[..., str]] = {
        "number": _number,
        "exact": _exact,
        "words": _words,
        "bounds": verdict.bounds,
    }
    filters |= {"signed": verdict.signed, "unsigned": verdict.unsigned}
    comparison = findings.comparison
    names = comparison["sft"]
    shown = rubric_metrics(names, findings.meanings) or [metric_that_counts(names)]
    return render_page(
        TEMPLATE,
        filters,
        found=findings,
        confidence=findings.params["evaluation"]["confidence"],
        headline=verdict.headline(comparison),
        sentences=verdict.sentences(comparison),
        tiles=[_row(metric, comparison) for metric in shown],
        truth="gold" if metric_that_counts(names) is GOLD else "the judge",
        win_rate=comparison["win_rate"],
        rows=list(_rows(comparison, findings.meanings)),
        kind_metrics=[metric for metric in metrics_among(names) if metric.more_is_better or metric is KL],
        over_optimisation=verdict.over_optimisation(findings.cycles),
        cycle_columns=_cycle_columns(names, findings.cycles[0]),
        scorer_rows=_side_by_side(findings.scorers),
        weak_scorers=[weak for name, metrics in findings.scorers.items() if (weak := weakness(name.lower(), metrics))],
        data_groups=_groups({name: value for name, value in findings.data.items() if name != "checks"}),
        checks=findings.data["checks"],
        param_groups=_groups(findings.params),
        score_columns=_score_columns(findings),
        images={name: _inline(path) for name, path in figures.items()},
        direction=verdict.direction,
    )


@dataclass(frozen=True)
class Column:
    """A column of numbers as the page shows it; `decimals` None: a tick or a cross."""

    name: str
    label: str
    decimals: int | None


def _cycle_columns(names: Iterable[str], cycle: Mapping[str, Any]) -> list[Column]:
    """What the table of cycles shows beside the cycle's number, as far as selection wrote it down."""
    shown = (KL, REWARD, JUDGE, *rubric_metrics(names), RESPONSE_TOKENS, ENTROPY)
    return [Column(metric.name, _heading(metric), metric.decimals) for metric in shown if metric.name in cycle]


def _heading(metric: Metric) -> str:
    return "KL" if metric is KL else _words(metric.name)


def _score_columns(findings: Findings) -> list[Column]:
    """What stands below a sample: a part of the rubric that says yes or no in all of them is a tick or a cross."""
    columns = []
    for name in scores_of(findings.comparison["sft"]):
        values = {sample[f"{side}_{name}"] for sample in findings.samples for side in ("sft", "candidate")}
        is_tick = name in parts_among(findings.comparison["sft"]) and values <= {0, 1}
        label, decimals = ("tokens", 0) if name == RESPONSE_TOKENS.name else (name, 2)
        columns.append(Column(name, label, None if is_tick else decimals))
    return columns


def _rows(comparison: Comparison, meanings: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for metric in metrics_among(comparison["sft"], meanings):
        yield _row(metric, comparison)
        if metric is JUDGE:
            yield _win_rate_row(comparison["win_rate"])


def _row(metric: Metric, comparison: Comparison) -> dict[str, Any]:
    sides = {side: comparison[side][metric.name] for side in ("sft", "candidate", "difference")}
    return {"metric": metric, **sides, **_look(metric, sides["difference"])}


def _win_rate_row(win_rate: Mapping[str, float]) -> dict[str, Any]:
    """Shown against the even chance of one half."""
    difference = {end: value - 0.5 for end, value in win_rate.items()}
    sides = {"sft": None, "candidate": win_rate, "difference": difference}
    return {"metric": WIN_RATE, **sides, **_look(WIN_RATE, difference)}


def _look(metric: Metric, difference: Mapping[str, float]) -> dict[str, Any]:
    moved = verdict.direction(difference)
    widest = max(abs(difference["low"]), abs(difference["high"])) or 1.0
    tones = {"rose": "good", "fell": "bad"} if metric.more_is_better else {}
    return {
        "moved": moved,
        "tone": tones.get(moved, "even"),
        "bar": {end: round(_BAR * value / widest, 2) for end, value in difference.items()},
    }


def _side_by_side(scorers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The numbers of both scorers as (name, [one a scorer]); None where one of them has no such number."""
    entries = [entry for metrics in scorers.values() for entry in metrics.items()]
    names = dict.fromkeys(name for name, value in entries if _is_number(value))
    return [(name, [metrics.get(name) for metrics in scorers.values()]) for name in names]


def _groups(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
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


def _number(value: Any) -> str:
    """A plain value for a reader: thin spaces in large integers, four digits of a fraction, text as it is."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "\N{EN DASH}"}[value]
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return _exact(value)


def _exact(value: Any) -> str:
    """A plain value as it was written: params are shown to the last digit."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(name: str) -> str:
    text = name.replace("_", " ").replace(".", " \N{MIDDLE DOT} ")
    return text[:1].upper() + text[1:]


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
