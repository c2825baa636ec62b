"""The intervals of distinct-n, which is a property of all responses together and not a mean over prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.evaluation.metrics import Record, by_prompt, distinct_n, ngrams
from components.statistics import Interval


def distinct_intervals(
    sft: Sequence[Record],
    candidate: Sequence[Record],
    n: int,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Interval]:
    """Distinct-n of "sft", "candidate" and their "difference", with bootstrap intervals paired by prompt.

    A prompt that is drawn twice brings no new n-grams, so resampled ratios lie below the measured one. Each
    interval is therefore the resampled spread moved so that its mean is the measured value (bias correction,
    Efron & Tibshirani 1993, section 10.6).

    Raises:
        ValueError: the two do not hold the same prompts in the same order.
    """
    if list(by_prompt(sft)) != list(by_prompt(candidate)):
        raise ValueError("the records of the two policies are of different prompts")
    old, new = _Grams(sft, n), _Grams(candidate, n)
    random = np.random.default_rng(seed)
    prompts = len(by_prompt(sft))
    drawn = np.empty((resamples, 2))
    for row in drawn:
        times = np.bincount(random.integers(prompts, size=prompts), minlength=prompts)
        row[:] = old.ratio(times), new.ratio(times)
    return {
        "sft": _centred(old.measured, drawn[:, 0], confidence),
        "candidate": _centred(new.measured, drawn[:, 1], confidence),
        "difference": _centred(new.measured - old.measured, drawn[:, 1] - drawn[:, 0], confidence),
    }


class _Grams:
    """The n-grams of a policy's responses as numbers, each with the number of the prompt it answers."""

    def __init__(self, records: Sequence[Record], n: int) -> None:
        self.measured = distinct_n([record["response"] for record in records], n)
        numbers: dict[tuple[str, ...], int] = {}
        found = [
            (numbers.setdefault(gram, len(numbers)), prompt)
            for prompt, group in enumerate(by_prompt(records).values())
            for record in group
            for gram in ngrams(record["response"], n)
        ]
        self.grams, self.owners = np.array(found, dtype=np.int64).reshape(-1, 2).T
        self.distinct = len(numbers)

    def ratio(self, times: NDArray[np.int64]) -> float:
        """Distinct-n where prompt p was drawn times[p] times."""
        weights = times[self.owners]
        present = np.zeros(self.distinct, dtype=bool)
        present[self.grams[weights > 0]] = True
        return float(present.sum() / max(1, weights.sum()))


def _centred(measured: float, drawn: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail]) + (measured - drawn.mean())
    return Interval(measured, float(low), float(high))
