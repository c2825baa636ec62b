"""Intervals over prompts: the one way in which Proximal says how sure it is of a mean.

A prompt is the unit: samples of one prompt are not independent, so callers average them first and pass one value a
prompt. All intervals are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from components.errors import DataError

# Below it an interval leans on the shape of a distribution that so few prompts do not show: it is shown, and nothing is
# said to have risen or fallen by it.
FEW_PROMPTS = 30


@dataclass(frozen=True)
class Interval:
    """A mean and its interval, in the units of the values."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], *, confidence: float) -> Interval:
    """The mean of one value a prompt and its t-interval (Student 1908).

    Values that are all equal give an interval of no width: of shares, use `share_interval`.

    Shapes: values (P,), P prompts.
    Raises:
        DataError: fewer than two values, or one that is not finite.
    """
    sample = _usable(values)
    error = float(sample.std(ddof=1)) / math.sqrt(len(sample))
    reach = float(t.ppf((1.0 + confidence) / 2.0, len(sample) - 1)) * error
    mean = float(sample.mean())
    return Interval(mean, mean - reach, mean + reach)


def share_interval(values: Sequence[float], *, confidence: float) -> Interval:
    """The mean of a share a prompt, each from 0 to 1, and its Wilson interval (Wilson 1927).

    It has a width also where no response, or every one, has the property. Several responses a prompt are worth
    n = p (1 - p) / variance of the mean independent ones (Kish 1965, the effective sample size); with one response a
    prompt that is the number of prompts.

    Shapes: values (P,), P prompts.
    Raises:
        DataError: fewer than two values, or one that is not finite.
    """
    sample = _usable(values)
    mean, variance = float(sample.mean()), float(sample.var())
    n = len(sample) * mean * (1.0 - mean) / variance if variance > 0.0 else float(len(sample))
    z = float(norm.ppf((1.0 + confidence) / 2.0))
    centre = (mean + z * z / (2.0 * n)) / (1.0 + z * z / n)
    reach = z / (1.0 + z * z / n) * math.sqrt(mean * (1.0 - mean) / n + z * z / (4.0 * n * n))
    # Rounding may leave the bounds on the wrong side of a mean of 0 or 1.
    return Interval(mean, max(0.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach)))


def paired_interval(
    candidate: Sequence[float], baseline: Sequence[float], *, confidence: float, shares: bool = False
) -> Interval:
    """The interval of mean(candidate - baseline), both measured on the same prompts in the same order.

    Each prompt's two values stay together: how hard a prompt is cancels out. It is the t-interval of the differences;
    of shares whose differences are all equal, which would have no width, it is the square-and-add interval of the two
    Wilson intervals (Newcombe 1998).

    Shapes: candidate (P,), baseline (P,).
    Raises:
        DataError: fewer than two prompts, or a value that is not finite.
        ValueError: the two do not have one value for each of the same prompts.
    """
    differences = [new - old for new, old in zip(candidate, baseline, strict=True)]
    interval = mean_interval(differences, confidence=confidence)
    if not shares or interval.low < interval.high:
        return interval
    new, old = (share_interval(values, confidence=confidence) for values in (candidate, baseline))
    return Interval(
        interval.mean,
        interval.mean - math.hypot(new.mean - new.low, old.high - old.mean),
        interval.mean + math.hypot(new.high - new.mean, old.mean - old.low),
    )


def _usable(values: Sequence[float]) -> np.ndarray:
    if len(values) < 2:
        raise DataError(
            "too few prompts for an interval",
            expected="at least 2 prompts",
            found=f"{len(values)}",
            do="add prompts to the split that is measured",
        )
    if not all(math.isfinite(value) for value in values):
        raise DataError(
            "a measured value is not finite",
            expected="finite numbers only",
            found=f"{next(value for value in values if not math.isfinite(value))}",
            do="run the stage that measured it again; if it stays, the model's numbers are broken",
        )
    return np.asarray(values, dtype=np.float64)
