"""Distinct-n, which is a property of all responses together and not a mean over prompts, and its intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from components.measuring.intervals import Interval
from components.measuring.records import Record, by_prompt


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The runs of n words (parts between white space) in a text, in order, with repetition."""
    words = text.split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def distinct_n(responses: Sequence[str], n: int) -> float:
    """Distinct n-grams / all n-grams over all responses; 0 where no response is n words long.

    The ratio falls with the amount of text, so compare it only at the same number of responses.
    """
    grams = [gram for response in responses for gram in ngrams(response, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def distinct_intervals(
    sft: Sequence[Record], candidate: Sequence[Record], n: int, *, confidence: float
) -> dict[str, Interval]:
    """Distinct-n of "sft", "candidate" and their "difference": jackknife t-intervals, paired by prompt.

    The bootstrap fails here, as a prompt that is drawn twice brings no new n-grams. Leaving out one prompt at
    a time needs no draw (Efron & Tibshirani 1993, ch. 11).

    Raises:
        ValueError: the two do not hold the same prompts in the same order, or fewer than two.
    """
    prompts = len(by_prompt(sft))
    if list(by_prompt(sft)) != list(by_prompt(candidate)):
        raise ValueError("the records of the two policies are of different prompts")
    if prompts < 2:
        raise ValueError("a jackknife needs at least two prompts")
    old, new = _Grams(sft, n), _Grams(candidate, n)
    every = np.ones(prompts, dtype=np.int64)
    without = np.empty((prompts, 2))
    for prompt, row in enumerate(without):
        every[prompt] = 0
        row[:] = old.ratio(every), new.ratio(every)
        every[prompt] = 1
    return {
        "sft": _jackknife(old.measured, without[:, 0], confidence),
        "candidate": _jackknife(new.measured, without[:, 1], confidence),
        "difference": _jackknife(new.measured - old.measured, without[:, 1] - without[:, 0], confidence),
    }


class _Grams:
    """The n-grams of a policy's responses as numbers, each with the number of the prompt it answers."""

    def __init__(self, records: Sequence[Record], n: int) -> None:
        self.measured = distinct_n([record.response for record in records], n)
        numbers: dict[tuple[str, ...], int] = {}
        found = [
            (numbers.setdefault(gram, len(numbers)), prompt)
            for prompt, group in enumerate(by_prompt(records).values())
            for record in group
            for gram in ngrams(record.response, n)
        ]
        self.grams, self.owners = np.array(found, dtype=np.int64).reshape(-1, 2).T
        self.distinct = len(numbers)

    def ratio(self, times: NDArray[np.int64]) -> float:
        """Distinct-n where prompt p counts times[p] times."""
        weights = times[self.owners]
        present = np.zeros(self.distinct, dtype=bool)
        present[self.grams[weights > 0]] = True
        return float(present.sum() / max(1, weights.sum()))


def _jackknife(measured: float, without: NDArray[np.float64], confidence: float) -> Interval:
    prompts = len(without)
    error = np.sqrt((prompts - 1) / prompts * np.square(without - without.mean()).sum())
    reach = float(t.ppf((1.0 + confidence) / 2.0, prompts - 1) * error)
    return Interval(measured, measured - reach, measured + reach)
