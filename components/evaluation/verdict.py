"""What the figures say, in words: the headline of the report and what follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from components.evaluation.cycles import Change
from components.measuring.compare import Comparison
from components.measuring.metrics import GOLD, REWARD, Metric, metric_that_counts, parts_among
from components.reports.numbers import bounds, signed, unsigned

Direction = Literal["rose", "fell", "did not change"]


def direction(difference: Mapping[str, float]) -> Direction:
    """Which side of zero the whole interval is on; "did not change" where it holds zero."""
    if difference["low"] > 0:
        return "rose"
    return "fell" if difference["high"] < 0 else "did not change"


def headline(comparison: Comparison) -> str:
    """Did the measure that counts rise? Gold where there is a rubric, the judge's score elsewhere."""
    metric = metric_that_counts(comparison["difference"])
    label, difference = _label(metric), comparison["difference"][metric.name]
    moved = direction(difference)
    if moved == "did not change":
        return f"{label} did not change beyond chance: {_moved(difference)}"
    return f"{label} {moved} by {unsigned(abs(difference['mean']), 3)} {_size(difference)}"


def _label(metric: Metric) -> str:
    return metric.label if metric is GOLD else f"The {metric.name} score"


def _size(difference: Mapping[str, float]) -> str:
    low, high = sorted(abs(difference[end]) for end in ("low", "high"))
    return bounds({"low": low, "high": high}, 3)


def sentences(comparison: Comparison) -> list[str]:
    """The rest of the verdict: parts of gold, win rate, distance and length."""
    parts = parts_among(comparison["difference"])
    said = [_parts(comparison["difference"], parts)] if parts else []
    wins, kl = comparison["win_rate"], comparison["candidate"]["kl"]
    lengths = [comparison[side]["response_tokens"]["mean"] for side in ("sft", "candidate")]
    said.append(
        f"The judge prefers the response of the candidate in {100 * wins['mean']:.1f} % "
        f"[{100 * wins['low']:.1f}, {100 * wins['high']:.1f}] of pairs."
    )
    said.append(
        f"The candidate stands {unsigned(kl['mean'], 2)} {bounds(kl, 2)} nats per sequence from SFT; the "
        f"mean length went from {lengths[0]:.1f} to {lengths[1]:.1f} tokens."
    )
    return said


def _parts(difference: Mapping[str, Mapping[str, float]], parts: Sequence[str]) -> str:
    groups: dict[Direction, list[str]] = {}
    for name in parts:
        groups.setdefault(direction(difference[name]), []).append(name)
    order: tuple[Direction, ...] = ("rose", "fell", "did not change")
    clauses = [
        f"{_list(groups[moved])} {moved}" + (" beyond chance" if moved == "did not change" else "")
        for moved in order
        if moved in groups
    ]
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def over_optimisation(cycles: Sequence[Mapping[str, Any]], change: Change) -> str:
    """Where the truth (gold, or the judge without a rubric) was highest, and what came after, beyond chance or not."""
    metric = metric_that_counts(cycles[0])
    truth, label = metric.name, _label(metric)
    peak, last = max(cycles, key=lambda row: row[truth]), cycles[-1]
    where = "at the SFT policy" if peak["cycle"] == 0 else f"after cycle {peak['cycle']}"
    reached = f"{label} is highest {where} (KL {unsigned(peak['kl'], 2)} nats)"
    if peak is last:
        gained = change(last["cycle"] - 1, last["cycle"], truth)
        said = f"{reached}, the last one, {_moved(gained)} from the one before"
        if direction(gained) == "rose":
            return f"{said}: no over-optimisation in sight."
        return f"{said}, which is within chance: it may have levelled off, and no fall is seen."
    lost, proxy = (change(peak["cycle"], last["cycle"], name) for name in (truth, REWARD.name))
    said = (
        f"{reached}. From there to the last cycle (KL {unsigned(last['kl'], 2)} nats) training reward moves by "
        f"{_moved(proxy)} and {label[0].lower() + label[1:]} by {_moved(lost)}"
    )
    if direction(lost) != "fell":
        return f"{said}: within chance, so that no over-optimisation is shown."
    return f"{said}: " + (
        "over-optimisation, beyond chance." if direction(proxy) == "rose" else "a fall, and not for more reward."
    )


def _moved(difference: Mapping[str, float]) -> str:
    return f"{signed(difference['mean'], 3)} {bounds(difference, 3)}"
