"""The cycles with how sure their figures are: from the validation records that each of them left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.measuring.compare import is_share
from components.measuring.intervals import mean_interval, paired_interval, share_interval
from components.measuring.metrics import metrics_among
from components.measuring.records import Record, prompt_means, read_records

# (cycle, later cycle, name of a metric) -> {"mean", "low", "high"} of what the metric gained in between
Change = Callable[[int, int, str], Mapping[str, float]]


def validation_records(files: Sequence[Path]) -> list[list[Record]]:
    """The records of the SFT policy, where the first cycle began, and of every cycle.

    Args:
        files: of each cycle, from the first.
    """
    read = [read_records(path) for path in files]
    return [read[0]["start"], *(records["cycle"] for records in read)]


def with_intervals(
    cycles: Sequence[Mapping[str, Any]], records: Sequence[Sequence[Record]], confidence: float
) -> list[dict[str, Any]]:
    """The table of cycles with, in each row, the "intervals" of its means over the validation prompts."""
    rows = []
    for row, measured in zip(cycles, records, strict=True):
        intervals = {}
        for metric in metrics_among(name for name in measured[0].numbers() if name in row):
            interval = share_interval if is_share(metric, measured) else mean_interval
            values = list(prompt_means(measured, metric.name).values())
            intervals[metric.name] = asdict(interval(values, confidence=confidence))
        rows.append({**row, "intervals": intervals})
    return rows


def change_between(records: Sequence[Sequence[Record]], confidence: float) -> Change:
    """What a metric gained from one cycle to another, paired by prompt: both answered with the same random numbers."""

    def change(before: int, after: int, name: str) -> Mapping[str, float]:
        old, new = (list(prompt_means(records[cycle], name).values()) for cycle in (before, after))
        return asdict(paired_interval(new, old, confidence=confidence))

    return change
