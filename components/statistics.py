"""Bootstrap intervals over prompts: the one way in which Proximal says how sure it is of a mean.

A prompt is the unit that is drawn again: samples of one prompt are not independent, so callers average
them first and pass one value a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import DataError

_DRAWS_AT_ONCE = 4_000_000  # bounds the memory of the index matrix to about 32 MB


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval, in the units of the values."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], *, resamples: int, confidence: float, seed: int) -> Interval:
    """The mean of one value a prompt and its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Shapes: values (P,), P prompts.
    Raises:
        DataError: fewer than two values, or one that is not finite.
    """
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
    sample = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(seed)
    rows = max(1, _DRAWS_AT_ONCE // len(sample))
    sizes = [(min(rows, resamples - start), len(sample)) for start in range(0, resamples, rows)]
    means = np.concatenate([sample[random.integers(len(sample), size=size)].mean(axis=1) for size in sizes])
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(sample.mean()), float(low), float(high))


def paired_bootstrap(
    candidate: Sequence[float], baseline: Sequence[float], *, resamples: int, confidence: float, seed: int
) -> Interval:
    """The interval of mean(candidate - baseline), both measured on the same prompts in the same order.

    Drawing prompts, not values, keeps each prompt's two values together: how hard a prompt is cancels out.

    Shapes: candidate (P,), baseline (P,).
    Raises:
        DataError: fewer than two prompts, or a value that is not finite.
        ValueError: the two do not have one value for each of the same prompts.
    """
    differences = [new - old for new, old in zip(candidate, baseline, strict=True)]
    return mean_interval(differences, resamples=resamples, confidence=confidence, seed=seed)
