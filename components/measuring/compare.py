"""SFT policy against candidate: every metric of both and of their difference, paired by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from components.config import Evaluation
from components.measuring.diversity import distinct_intervals
from components.measuring.intervals import FEW_PROMPTS, Interval, mean_interval, paired_interval, share_interval
from components.measuring.metrics import COMPARED_BY, DISTINCT, WIN_RATE, Metric, metrics_among, parts_among
from components.measuring.records import Record, prompt_means, prompt_win_rates

# {"sft" | "candidate" | "difference": {metric: {"mean", "low", "high"}}, "win_rate": {"mean", "low", "high"}}
Comparison = dict[str, Any]
_DECIMALS = 4


def compare(sft: Sequence[Record], candidate: Sequence[Record], settings: Evaluation) -> Comparison:
    """Every metric that the records hold, as `Comparison`; "difference" is candidate minus SFT.

    Raises:
        DataError: fewer than two prompts, or a value that is not finite.
        ValueError: the two do not hold the same prompts and samples.
    """
    confidence = settings.confidence
    table: dict[str, dict[str, Interval]] = {"sft": {}, "candidate": {}, "difference": {}}
    win_rate = share_interval(prompt_win_rates(candidate, sft), confidence=confidence)
    for metric in metrics_among(candidate[0].numbers()):
        shares = is_share(metric, (*sft, *candidate))
        interval = share_interval if shares else mean_interval
        old, new = (list(prompt_means(records, metric.name).values()) for records in (sft, candidate))
        table["sft"][metric.name] = interval(old, confidence=confidence)
        table["candidate"][metric.name] = interval(new, confidence=confidence)
        table["difference"][metric.name] = paired_interval(new, old, confidence=confidence, shares=shares)
    for n, metric in DISTINCT.items():
        for side, found in distinct_intervals(sft, candidate, n, confidence=confidence).items():
            table[side][metric.name] = found
    plain = {side: {name: asdict(value) for name, value in row.items()} for side, row in table.items()}
    return {**plain, "win_rate": asdict(win_rate)}


def is_share(metric: Metric, records: Sequence[Record]) -> bool:
    """Whether a figure is a share of responses: by its nature, or as a part of the rubric that only says yes or no."""
    is_part = metric.name in parts_among(records[0].rubric)
    return metric.share or (is_part and all(record.rubric[metric.name] in (0, 1) for record in records))


def compare_by_kind(sft: Sequence[Record], candidate: Sequence[Record], settings: Evaluation) -> dict[str, Comparison]:
    """`compare` for each kind of prompt with at least two prompts; empty where the data names no kinds.

    Beside it stand the number of `prompts`, and whether they are too `few` to say that anything rose or fell.
    """
    prompts_of: dict[str, set[str]] = {}
    for record in sft:
        if record.kind is not None:
            prompts_of.setdefault(record.kind, set()).add(record.prompt_id)
    return {
        kind: {"prompts": len(prompts), "few": len(prompts) < FEW_PROMPTS}
        | compare(_of(prompts, sft), _of(prompts, candidate), settings)
        for kind, prompts in sorted(prompts_of.items())
        if len(prompts) >= 2
    }


def _of(prompts: set[str], records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.prompt_id in prompts]


def headline(comparison: Comparison) -> dict[str, Any]:
    """The few numbers that fit a line of `dvc exp show`: the candidate's means and what it gained on SFT."""
    means = {name: interval["mean"] for name, interval in comparison["candidate"].items()}
    gains = {name: interval["mean"] for name, interval in comparison["difference"].items()}
    return {**means, "win_rate": comparison["win_rate"]["mean"], "difference": gains}


def flat(comparison: Comparison) -> dict[str, float]:
    """The comparison's means under the names that every method shares in MLflow, which puts names in order by letter.

    eval/... are the few that policies are compared by, the candidate's; eval_more/... are its others; gain/... is
    candidate minus SFT. Rounded to _DECIMALS: MLflow's tables show every digit that there is.
    """
    values = {name: round(interval["mean"], _DECIMALS) for name, interval in comparison["candidate"].items()}
    values[WIN_RATE.name] = round(comparison["win_rate"]["mean"], _DECIMALS)
    first = [metric.name for metric in COMPARED_BY if metric.name in values]
    gains = {name: round(interval["mean"], _DECIMALS) for name, interval in comparison["difference"].items()}
    return {
        **{f"eval/{name}": values[name] for name in first},
        **{f"gain/{name}": gains[name] for name in first if name in gains},
        **{f"eval_more/{name}": value for name, value in values.items() if name not in first},
        **{f"gain/{name}": value for name, value in gains.items() if name not in first},
    }
