"""The rule that picks the candidate among the cycles. Plain numbers in, a decision with its reasons out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CycleFigures:
    """What the rule may look at. Neither gold nor the training reward is here: they must not choose.

    Units: kl in nats per sequence; judge in standard deviations of the judge's score on SFT samples.
    """

    cycle: int
    judge: float
    kl: float


@dataclass(frozen=True)
class Rejected:
    """A cycle that was not chosen, and why."""

    cycle: int
    judge: float
    kl: float
    reason: str


@dataclass(frozen=True)
class Decision:
    """The chosen cycle, why it was chosen, and why every other one was not."""

    chosen: CycleFigures
    within_ceiling: bool
    reason: str
    rejected: tuple[Rejected, ...]


def choose_cycle(cycles: Sequence[CycleFigures], max_kl: float) -> Decision:
    """The cycle with the highest judge score among those whose KL is at most `max_kl`; ties go to lower KL.

    When no cycle is within the ceiling, the one with the lowest KL is taken and `within_ceiling` is false:
    the evaluation then still shows what happened, and promotion refuses it.

    Units: max_kl in nats per sequence.
    Raises:
        ValueError: there is no cycle.
    """
    within = [cycle for cycle in cycles if cycle.kl <= max_kl]
    if within:
        chosen = min(within, key=lambda cycle: (-cycle.judge, cycle.kl, cycle.cycle))
        reason = (
            f"highest judge score ({chosen.judge:.3f}) among the cycles whose KL is at most {max_kl:g} nats "
            f"per sequence ({len(within)} of {len(cycles)})"
        )
    else:
        chosen = min(cycles, key=lambda cycle: (cycle.kl, -cycle.judge, cycle.cycle))
        reason = (
            f"no cycle is within the ceiling of {max_kl:g} nats per sequence; this one has the lowest KL "
            f"({chosen.kl:.2f}) and promotion will refuse it"
        )
    rejected = tuple(
        Rejected(cycle.cycle, cycle.judge, cycle.kl, _why_not(cycle, chosen, max_kl))
        for cycle in cycles
        if cycle != chosen
    )
    return Decision(chosen, bool(within), reason, rejected)


def _why_not(cycle: CycleFigures, chosen: CycleFigures, max_kl: float) -> str:
    if cycle.kl > max_kl:
        return f"KL {cycle.kl:.2f} is above the ceiling of {max_kl:g} nats per sequence"
    if cycle.judge < chosen.judge:
        return f"judge score {cycle.judge:.3f} is below cycle {chosen.cycle}'s {chosen.judge:.3f}"
    if cycle.kl > chosen.kl:
        return f"judge score as high as cycle {chosen.cycle}'s, at a higher KL ({cycle.kl:.2f})"
    return f"judge score and KL as cycle {chosen.cycle}'s, and later"
