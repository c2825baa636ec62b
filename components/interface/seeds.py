"""Does the result hold for other seeds? What README claims of the shipped world, checked figure by figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.measuring.metrics import parts_among

SEEDS = (1, 2, 3)
MAX_KL_NATS_PER_SEQUENCE = 6.0


@dataclass(frozen=True)
class Criterion:
    """One claim and whether an evaluation bears it out."""

    claim: str
    holds: bool


def criteria(evaluation: dict[str, Any]) -> list[Criterion]:
    """The claims about one seed's held-out prompts: gold beyond its interval, its parts by their means."""
    gain = evaluation["difference"]
    parts = parts_among(gain)
    risen = [part for part in parts if gain[part]["mean"] > 0]
    fallen = [part for part in parts if gain[part]["mean"] < 0]
    return [
        Criterion("gold rises, interval above zero", gain["gold"]["low"] > 0),
        Criterion("no part falls", not fallen),
        Criterion("two parts rise", len(risen) >= 2),
        Criterion(
            f"KL below {MAX_KL_NATS_PER_SEQUENCE:g} nats",
            evaluation["candidate"]["kl"]["mean"] < MAX_KL_NATS_PER_SEQUENCE,
        ),
    ]
