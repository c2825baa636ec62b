"""What must not fall: a candidate against its opponent on suites of one's own. Plain numbers in, reasons out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.measuring.intervals import Interval, paired_interval

SUITES = "suites/"  # what the names of their figures begin with


@dataclass(frozen=True)
class Floor:
    """One suite, measured.

    Args:
        candidate, opponent: means over prompts.
        gain: of the candidate over the opponent, paired by prompt.
        max_fall: a fall of the mean beyond it refuses, sure or not; None where only a sure fall does.
    """

    name: str
    candidate: float
    opponent: float
    gain: Interval
    max_fall: float | None

    @property
    def reason(self) -> str | None:
        """Why the candidate may not be promoted; None where it holds."""
        moved = f"{self.gain.mean:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]"
        if self.gain.high < 0.0:
            return f"{self.name} fell beyond its interval: {moved}"
        if self.max_fall is not None and self.gain.mean < -self.max_fall:
            return f"{self.name} fell by more than {self.max_fall:g} (promotion.suites.{self.name}.max_fall): {moved}"
        return None

    @property
    def figures(self) -> dict[str, float]:
        """By the names of tags and metrics."""
        values = {
            "candidate": self.candidate,
            "opponent": self.opponent,
            "gain": self.gain.mean,
            "gain_low": self.gain.low,
            "gain_high": self.gain.high,
        }
        return {f"{SUITES}{self.name}/{name}": value for name, value in values.items()}

    def line(self) -> str:
        """For people."""
        return floor_line(self.name, {name.rpartition("/")[2]: value for name, value in self.figures.items()})


def floor_of(
    name: str,
    candidate: Mapping[str, float],
    opponent: Mapping[str, float],
    *,
    max_fall: float | None,
    confidence: float,
) -> Floor:
    """Hold two policies against each other on one suite.

    Args:
        candidate, opponent: prompt id -> mean over the prompt's samples, of the same prompts.

    Raises:
        DataError: fewer than two prompts.
        ValueError: the two are not of the same prompts.
    """
    if candidate.keys() != opponent.keys():
        raise ValueError(f"suite {name}: candidate and opponent answered different prompts")
    new, old = list(candidate.values()), [opponent[prompt] for prompt in candidate]
    are_shares = all(0.0 <= value <= 1.0 for value in (*new, *old))
    gain = paired_interval(new, old, confidence=confidence, shares=are_shares)
    return Floor(name, sum(new) / len(new), sum(old) / len(old), gain, max_fall)


def floor_line(name: str, figures: Mapping[str, float]) -> str:
    """A suite in a line: both means, the difference and its interval."""
    low, high = f"{figures['gain_low']:+.3f}", f"{figures['gain_high']:+.3f}"
    return f"{name} {figures['opponent']:.3f} -> {figures['candidate']:.3f}, {figures['gain']:+.3f} [{low}, {high}]"


def by_suite(figures: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The figures of suites among all of a decision: suite -> candidate, opponent, gain, gain_low, gain_high."""
    suites: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        if key.startswith(SUITES):
            _, name, figure = key.split("/")
            suites.setdefault(name, {})[figure] = value
    return suites
