"""Texts that are nearly the same: Jaccard similarity of their three-word shingles.

Exact, not sampled. Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007) keeps it quick: two sets of
sizes n and m with Jaccard similarity >= t share at least t*n elements, so when every set is sorted by one
common order they must meet within their first n - ceil(t*n) + 1 elements. With the rarest shingles first, few
others wait there.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

SHINGLE_WORDS = 3
_WORD = re.compile(r"\w+")


def repeated_texts(texts: Sequence[str], similarity: float) -> dict[int, int]:
    """Texts that nearly repeat an earlier one: position -> position of that earlier text.

    A text that repeats another is not compared with later ones, so a thousand copies cost a thousand
    comparisons; the count is the number of texts that deduplication would remove.
    """
    index = _ShingleIndex(texts, similarity)
    repeats: dict[int, int] = {}
    for position in range(len(texts)):
        earlier = index.find(position)
        if earlier is None:
            index.add(position)
        else:
            repeats[position] = earlier
    return repeats


def twins_between(known: Sequence[str], texts: Sequence[str], similarity: float) -> dict[int, int]:
    """Which `texts` have a near duplicate in `known`: position in `texts` -> position in `known`."""
    index = _ShingleIndex([*known, *texts], similarity)
    for position in range(len(known)):
        index.add(position)
    found = {position: index.find(len(known) + position) for position in range(len(texts))}
    return {position: twin for position, twin in found.items() if twin is not None}


class _ShingleIndex:
    """Finds an added text that is similar to a given one. Texts without a word are similar to none."""

    def __init__(self, texts: Sequence[str], similarity: float) -> None:
        self._similarity = similarity
        self._shingles = _rarest_first(texts)
        self._sets: dict[int, frozenset[int]] = {}
        self._waiting: dict[int, list[int]] = defaultdict(list)

    def add(self, position: int) -> None:
        for shingle in self._prefix(position):
            self._waiting[shingle].append(position)

    def find(self, position: int) -> int | None:
        size = len(self._shingles[position])
        seen: set[int] = set()
        for shingle in self._prefix(position):
            for other in self._waiting.get(shingle, ()):
                if other in seen:
                    continue
                seen.add(other)
                other_size = len(self._shingles[other])
                if min(size, other_size) < self._similarity * max(size, other_size) - 1e-9:
                    continue
                shared = len(self._set(position) & self._set(other))
                if shared >= self._similarity * (size + other_size - shared) - 1e-9:
                    return other
        return None

    def _prefix(self, position: int) -> list[int]:
        shingles = self._shingles[position]
        size = len(shingles)
        return shingles[: size - math.ceil(self._similarity * size - 1e-9) + 1]

    def _set(self, position: int) -> frozenset[int]:
        if position not in self._sets:
            self._sets[position] = frozenset(self._shingles[position])
        return self._sets[position]


def _rarest_first(texts: Sequence[str]) -> list[list[int]]:
    """Every text's set of shingles, as numbers that grow with the number of texts that hold the shingle."""
    vocabulary: dict[str, int] = {}
    words: list[int] = []
    lengths: list[int] = []
    for text in texts:
        ids = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in _WORD.findall(text.casefold())]
        if ids:
            ids += [0] * (SHINGLE_WORDS - len(ids))  # a shorter text is one shingle of its own
        words.extend(ids)
        lengths.append(len(ids))
    if not words:
        return [[] for _ in texts]

    word = np.array(words, dtype=np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    base = len(vocabulary) + 1  # base**3 fits 63 bits up to two million different words
    codes = (word[:-2] * base + word[1:-1]) * base + word[2:]
    inside = owner[:-2] == owner[2:]  # the others would run from one text into the next
    distinct, shingle = np.unique(codes[inside], return_inverse=True)
    held = np.sort(owner[:-2][inside] * len(distinct) + shingle)
    held = held[np.append(True, held[1:] != held[:-1])]  # each shingle once per text; np.unique takes ten times as long
    owner, shingle = np.divmod(held, len(distinct))
    frequency = np.bincount(shingle, minlength=len(distinct))
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(distinct))
    owner, shingle = np.divmod(np.sort(owner * len(distinct) + rank[shingle]), len(distinct))
    bounds = np.searchsorted(owner, np.arange(len(texts) + 1))
    numbers = shingle.tolist()
    return [numbers[bounds[text] : bounds[text + 1]] for text in range(len(texts))]
