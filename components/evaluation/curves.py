"""The curves of the whole run, in the form that `dvc plots` draws, and its checks: gathered from the cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from components.artifacts import read_json
from components.measuring.metrics import GOLD, JUDGE, REWARD

SHOWN = (REWARD.name, JUDGE.name, GOLD.name)


def training_rows(curves: Sequence[Path]) -> list[dict[str, Any]]:
    """The curves of all cycles, one row an iteration."""
    return [row for curve in curves for row in read_json(curve)]


def checks_of_cycles(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What a run checked of itself: a row a check, as the cycles' checks.json has it, with `largest` a list.

    It holds each cycle's largest figure, None where the cycle did not look. One that was held against several bounds
    has a row for each.
    """
    cycles = [read_json(file) for file in files]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, rows in enumerate(cycles):
        for row in rows:
            kind = tuple(row[name] for name in ("name", "what", "bound", "unit"))
            of_all = found.setdefault(kind, {**row, "largest": [None] * len(cycles), "times": 0})
            of_all["largest"][number] = row["largest"]
            of_all["times"] += row["times"]
    return list(found.values())


def standardised(cycles: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Proxy, judge and gold on one axis: each minus its mean over the cycles, over its standard deviation.

    A curve that never moves stays at 0.
    """
    curves = {name: [row[name] for row in cycles] for name in SHOWN if name in cycles[0]}
    moments = {name: (fmean(curve), pstdev(curve) or 1.0) for name, curve in curves.items()}
    return [
        {"cycle": row["cycle"], "sqrt_kl": row["sqrt_kl"]}
        | {name: (row[name] - mean) / spread for name, (mean, spread) in moments.items()}
        for row in cycles
    ]
