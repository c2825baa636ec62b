"""Texts that are nearly the same: Jaccard similarity of their three-word shingles.

Exact, not sampled (words are told apart by 64 bits each). Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007)
keeps it quick: two sets of
sizes n and m with Jaccard similarity >= t share at least t*n elements, so when every set is sorted by one
common order they must meet within their first n - ceil(t*n) + 1 elements. With the rarest shingles first, few
others wait there; none waits at a shingle that no other text has.

Long texts by the hundred thousand are sorted in blocks, so that memory holds two small numbers a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from components.data_validation.words import number_words

SHINGLE_WORDS = 3
BLOCK = 1 << 21  # words that are sorted at once


def repeated_texts(texts: Iterable[str], similarity: float) -> dict[int, int]:
    """Texts that nearly repeat an earlier one: position -> position of that earlier text.

    A text that repeats another is not compared with later ones, so a thousand copies cost a thousand
    comparisons; the count is the number of texts that deduplication would remove.
    """
    index = _ShingleIndex(texts, similarity)
    repeats: dict[int, int] = {}
    for position in range(len(index)):
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

    def __init__(self, texts: Iterable[str], similarity: float) -> None:
        self._similarity = similarity
        self._shingles, sizes, alone = _rarest_first(texts)
        bounds = np.append(0, np.cumsum(sizes))
        needed = np.minimum(sizes, sizes - np.ceil(similarity * sizes - 1e-9).astype(np.int64) + 1)
        self._sizes: list[int] = sizes.tolist()
        self._bounds: list[int] = bounds.tolist()
        self._prefix_begins: list[int] = (bounds[:-1] + _own_below(self._shingles, sizes, alone)).tolist()
        self._prefix_ends: list[int] = (bounds[:-1] + needed).tolist()
        self._waiting: dict[int, list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, position: int) -> None:
        for shingle in self._prefix(position):
            self._waiting[shingle].append(position)

    def find(self, position: int) -> int | None:
        size = self._sizes[position]
        mine: frozenset[int] | None = None
        seen: set[int] = set()
        for shingle in self._prefix(position):
            for other in self._waiting.get(shingle, ()):
                if other in seen:
                    continue
                seen.add(other)
                other_size = self._sizes[other]
                if min(size, other_size) < self._similarity * max(size, other_size) - 1e-9:
                    continue
                mine = mine or frozenset(self._of(position))
                shared = len(mine.intersection(self._of(other)))
                if shared >= self._similarity * (size + other_size - shared) - 1e-9:
                    return other
        return None

    def _prefix(self, position: int) -> list[int]:
        """The shingles by which a text is found, but for those that it alone has."""
        begin, end = self._prefix_begins[position], self._prefix_ends[position]
        shingles: list[int] = self._shingles[begin:end].tolist() if begin < end else []
        return shingles

    def _of(self, position: int) -> list[int]:
        shingles: list[int] = self._shingles[self._bounds[position] : self._bounds[position + 1]].tolist()
        return shingles


def _own_below(shingles: NDArray[np.int32], sizes: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """How many shingles of each text are below a limit; each text's are in order, the smallest first."""
    counts = np.zeros(len(sizes), dtype=np.int64)
    for first, last, block in _blocks(sizes):
        own = np.append(0, np.cumsum(shingles[block] < limit))
        bounds = np.append(0, np.cumsum(sizes[first:last]))
        counts[first:last] = np.diff(own[bounds])
    return counts


def _rarest_first(texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Every text's set of shingles, as numbers that grow with the number of texts that hold the shingle.

    Returns: all sets, one behind the other; the size of each; how many shingles only one text has, which are the
    lowest numbers.
    """
    words, lengths, vocabulary = number_words(texts, SHINGLE_WORDS)
    shingles, distinct = _numbered(words, lengths, vocabulary)
    del words
    sizes = np.zeros(len(lengths), dtype=np.int64)
    frequency = np.zeros(distinct, dtype=np.int64)
    end = 0
    for first, last, block in _blocks(lengths):
        key = _keys(shingles[block], lengths[first:last], distinct)
        key = key[np.append(True, key[1:] != key[:-1])] if len(key) else key  # each shingle once per text
        owner, shingle = np.divmod(key, max(distinct, 1))
        sizes[first:last] = np.bincount(owner, minlength=last - first)
        frequency += np.bincount(shingle, minlength=distinct)
        shingles[end : end + len(shingle)] = shingle
        end += len(shingle)
    rank = np.empty(distinct, dtype=np.int32)
    rank[np.argsort(frequency, kind="stable")] = np.arange(distinct, dtype=np.int32)
    for first, last, block in _blocks(sizes):
        shingles[block] = _keys(rank[shingles[block]], sizes[first:last], distinct) % max(distinct, 1)
    return shingles[:end], sizes, int((frequency == 1).sum())


def _numbered(words: NDArray[np.int32], lengths: NDArray[np.int64], vocabulary: int) -> tuple[NDArray[np.int32], int]:
    """The number of the shingle that begins at each word, or -1 where it would run into the next text.

    Shingles are numbered as their words are ordered, those of some first words at a time. Returns also how many differ.
    """
    numbers = np.full(len(words), -1, dtype=np.int32)
    if not len(words):
        return numbers, 0
    base = vocabulary + 1  # base**3 fits 63 bits up to two million different words
    begins = np.ones(len(words), dtype=bool)
    ends = np.cumsum(lengths)[lengths > 0]
    for back in range(1, SHINGLE_WORDS):
        begins[ends - back] = False
    count = np.zeros(base, dtype=np.int64)
    for start in range(0, len(words), BLOCK):
        count += np.bincount(words[start : start + BLOCK], minlength=base)
    passes = np.cumsum(count) // BLOCK  # by first word
    distinct = 0
    for number in range(int(passes[-1]) + 1):
        low, high = np.searchsorted(passes, [number, number + 1])
        places = np.concatenate(
            [
                start + np.flatnonzero(begins[block] & (words[block] >= low) & (words[block] < high))
                for start in range(0, len(words), BLOCK)
                if (block := slice(start, start + BLOCK))
            ]
        )
        code = words[places].astype(np.int64)
        for next_word in range(1, SHINGLE_WORDS):
            code = code * base + words[places + next_word]
        codes, shingle = np.unique(code, return_inverse=True)
        numbers[places] = distinct + shingle
        distinct += len(codes)
    return numbers, distinct


def _blocks(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int, slice]]:
    """Texts from one to before another, about BLOCK words at a time, and where these lie."""
    bounds = np.append(0, np.cumsum(lengths))
    first = 0
    while first < len(lengths):
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK, side="right")) - 1)
        yield first, last, slice(int(bounds[first]), int(bounds[last]))
        first = last


def _keys(numbers: NDArray[np.int32], lengths: NDArray[np.int64], base: int) -> NDArray[np.int64]:
    """owner * base + number of those that are numbers at all, sorted: each text's own, smallest first."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    sound = numbers >= 0
    key: NDArray[np.int64] = owner[sound] * base + numbers[sound]
    key.sort()
    return key
