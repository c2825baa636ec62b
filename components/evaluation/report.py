"""The report: one page that stands alone, made of the files that the stages wrote."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.evaluation import samples, verdict
from components.evaluation.model_size import ModelSize
from components.evaluation.rows import Column, cycle_columns, figure_row, figure_rows, groups, scorer_rows, tone
from components.measuring.compare import Comparison
from components.measuring.metrics import (
    GOLD,
    KL,
    RESPONSE_TOKENS,
    WIN_RATE,
    metric_that_counts,
    metrics_among,
    parts_among,
    rubric_metrics,
)
from components.measuring.weak_scorers import unmeasured, weakness
from components.reports.page import render_page

TEMPLATE = Path(__file__).with_name("report.html.jinja")
_WORST = 5  # how many of the greatest losses are shown on paper, and without JavaScript


@dataclass(frozen=True)
class Findings:
    """All that the page shows. Without kinds `by_kind` is empty; without a rubric its figures are absent."""

    comparison: Comparison
    by_kind: Mapping[str, Comparison]
    shares: frozenset[str]  # names of the figures that are shares of responses
    pairs: Sequence[Mapping[str, Any]]
    lot: Sequence[Mapping[str, Any]]  # of the pairs, those drawn by lot
    cycles: Sequence[Mapping[str, Any]]
    over_optimisation: str
    selection: Mapping[str, Any]
    self_checks: Sequence[Mapping[str, Any]]  # what, unit, bound, and "largest" of each cycle
    scorers: Mapping[str, Mapping[str, Any]]  # "Reward model", "Judge" -> metrics.json
    data: Mapping[str, Any]
    params: Mapping[str, Any]
    meanings: Mapping[str, str]  # of the rubric's parts
    digests: Mapping[str, str]  # of what the page was made from, by names for people
    model: ModelSize
    prompts: int
    samples_per_prompt: int


@dataclass(frozen=True)
class Picture:
    """A figure as PNG, once for a wide page and once for a phone."""

    wide: bytes
    narrow: bytes

    @property
    def urls(self) -> tuple[str, str]:
        wide, narrow = (base64.b64encode(png).decode("ascii") for png in (self.wide, self.narrow))
        return f"data:image/png;base64,{wide}", f"data:image/png;base64,{narrow}"


def render(findings: Findings, figures: Mapping[str, Picture]) -> str:
    """The HTML of the report, with the figures and the pairs inside it."""
    comparison = findings.comparison
    names = comparison["sft"]
    counts = metric_that_counts(names)
    columns = _score_columns(findings)
    return render_page(
        TEMPLATE,
        found=findings,
        confidence=findings.params["evaluation"]["confidence"],
        headline=verdict.headline(comparison),
        sentences=verdict.sentences(comparison),
        tiles=[figure_row(metric, comparison) for metric in rubric_metrics(names, findings.meanings) or [counts]],
        truth="gold" if counts is GOLD else "the judge",
        counts=counts,
        win_rate=comparison["win_rate"],
        rows=figure_rows(comparison, findings.meanings, findings.shares),
        shares=[*(metric.label for metric in metrics_among(names) if metric.name in findings.shares), WIN_RATE.label],
        kind_metrics=[metric for metric in metrics_among(names) if metric.more_is_better or metric is KL],
        cycle_columns=cycle_columns(names, findings.cycles[0]),
        scorer_rows=scorer_rows(findings.scorers),
        weak_scorers=[weak for name, metrics in findings.scorers.items() if (weak := weakness(name.lower(), metrics))],
        unmeasured_scorers=[
            unknown for name, metrics in findings.scorers.items() if (unknown := unmeasured(name.lower(), metrics))
        ],
        data_groups=groups({name: value for name, value in findings.data.items() if name != "checks"}),
        checks=findings.data["checks"],
        param_groups=groups(findings.params),
        score_columns=columns,
        worst=samples.worst(findings.pairs, counts.name, _WORST),
        kinds=sorted({pair["kind"] for pair in findings.pairs if pair["kind"]}),
        most_pairs=samples.MOST_PAIRS,
        gain=samples.gain,
        pairs_json=_json_for_page(findings, counts.name, columns),
        columns_json=_columns_json(columns),
        images={name: picture.urls for name, picture in figures.items()},
        direction=verdict.direction,
        tone=tone,
    )


def _json_for_page(findings: Findings, counts: str, columns: Sequence[Column]) -> Markup:
    return Markup(samples.for_page(findings.pairs, findings.lot, counts, [column.name for column in columns]))


def _columns_json(columns: Sequence[Column]) -> Markup:
    return Markup(samples.json_in_script([[column.label, column.decimals] for column in columns]))


def _score_columns(findings: Findings) -> list[Column]:
    """What stands below a sample: a part of the rubric that says yes or no in all of them is a tick or a cross."""
    columns = []
    for name in samples.scores_of(findings.comparison["sft"]):
        is_tick = name in parts_among(findings.comparison["sft"]) and name in findings.shares
        label, decimals = ("tokens", 0) if name == RESPONSE_TOKENS.name else (name, 2)
        columns.append(Column(name, label, None if is_tick else decimals))
    return columns
