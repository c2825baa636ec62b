"""What MLflow is told of an evaluation, by the stage itself and again by a pipeline that found it unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.evaluation import verdict
from components.evaluation.samples import paired
from components.measuring.compare import Comparison, flat
from components.measuring.metrics import (
    GOLD,
    JUDGE,
    KL,
    RESPONSE_TOKENS,
    REWARD,
    WIN_RATE,
    Metric,
    metrics_among,
)
from components.measuring.records import Record
from components.reports.numbers import bounds, signed, unsigned
from components.tracking import StageRun

_DESCRIBED = (GOLD, JUDGE, KL, RESPONSE_TOKENS)
_PER_CYCLE = (GOLD.name, JUDGE.name, REWARD.name, KL.name)
_PAIRED = (GOLD, JUDGE, RESPONSE_TOKENS)  # columns of the table of pairs that stand before the others


def record_figures(run: StageRun, comparison: Comparison) -> None:
    """Figures, and their intervals as a table."""
    run.metrics(flat(comparison))
    run.table("figures.json", list(figure_rows(comparison)))


def record_curves(
    run: StageRun, training: Sequence[Mapping[str, float]], cycles: Sequence[Mapping[str, float]]
) -> None:
    """The curves of the whole pipeline, on one page. After the figures: MLflow lists metrics as they come.

    Args:
        training: the rows of all iterations, numbered through all cycles; see `training_rows`.
        cycles: the table that selection went by, from cycle 0, the SFT policy.
    """
    for row in training:
        values = {f"train/{name}": value for name, value in row.items() if name not in ("cycle", "iteration")}
        run.metrics(values, step=int(row["iteration"]))
    for row in cycles:
        values = {f"validation/{name}": row[name] for name in _PER_CYCLE if name in row}
        run.metrics(values, step=int(row["cycle"]))


def figure_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Every metric with its three intervals, a row each."""
    for metric in metrics_among(comparison["candidate"]):
        old, new, gain = (comparison[side][metric.name] for side in ("sft", "candidate", "difference"))
        yield {
            **{"figure": metric.label, "sft": old["mean"], "candidate": new["mean"], "difference": gain["mean"]},
            **_ends("difference", gain),
            **_ends("candidate", new),
            **_ends("sft", old),
        }
    wins = comparison["win_rate"]
    yield {"figure": WIN_RATE.label, "candidate": wins["mean"], **_ends("candidate", wins)}


def _ends(name: str, interval: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{end}": interval[end] for end in ("low", "high")}


def pair_rows(sft: Sequence[Record], candidate: Sequence[Record]) -> list[dict[str, Any]]:
    """Every pair of responses to a prompt: the texts first, then what counts of both, then all else."""
    return [_pair(*pair) for pair in paired(sft, candidate)]


def _pair(sft: Record, candidate: Record) -> dict[str, Any]:
    old, new = sft.numbers(), candidate.numbers()
    first = [metric.name for metric in _PAIRED if metric.name in new]
    row: dict[str, Any] = {"prompt": sft.prompt, "sft": sft.response, "candidate": candidate.response}
    for name in (*first, *(name for name in new if name not in first)):
        row |= {f"{name} sft": round(old[name], 4), f"{name} candidate": round(new[name], 4)}
    return row | {"kind": sft.kind, "sample": sft.sample, "prompt_id": sft.prompt_id}


def description(comparison: Comparison, decision: str | None, report: str | None) -> str:
    """Markdown for the page of a run: what was decided, the figures that count, where the report is.

    Args:
        decision: in one line; None where nothing was offered for promotion.
        report: the page of the report.
    """
    link = f" [Report]({report})" if report else ""
    lines = [
        *([decision, ""] if decision else []),
        f"{verdict.headline(comparison)}.{link}",
        "",
        "| | SFT | candidate | difference |",
        "|:--|--:|--:|--:|",
        *(_line(comparison, metric) for metric in _DESCRIBED if metric.name in comparison["candidate"]),
        f"| {WIN_RATE.label} | | {_mean(comparison['win_rate'], WIN_RATE)} | |",
    ]
    return "\n".join(lines)


def _line(comparison: Comparison, metric: Metric) -> str:
    old, new, gain = (comparison[side][metric.name] for side in ("sft", "candidate", "difference"))
    moved = f"{signed(gain['mean'], metric.decimals)} {bounds(gain, metric.decimals)}"
    sides = (unsigned(side["mean"], metric.decimals) for side in (old, new))
    return f"| {metric.label} | {' | '.join(sides)} | {moved} |"


def _mean(interval: Mapping[str, float], metric: Metric) -> str:
    return f"{unsigned(interval['mean'], metric.decimals)} {bounds(interval, metric.decimals)}"
