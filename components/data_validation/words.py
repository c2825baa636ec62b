"""The words of many texts as numbers, worked out of their bytes a block at a time: a million texts have too many words
for a Python object each.

A word is told by a polynomial hash of its bytes: of words up to w from place a to before b, sum(byte[i] * BASE**i) is a
difference of two running sums, and times BASE**-a (all modulo 2**64, where BASE has an inverse, for it is odd) the same
wherever the word stands. That two of a million words have one hash by chance: 1e12 / 2**65, one in forty million.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BLOCK = 1 << 18  # bytes that are looked at together: what is worked out of them stays near the processor
BASE = 0x9E3779B97F4A7C15
_WORD = re.compile(r"\w+")
_MARKS = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026"  # quotes, dashes and the ellipsis are no part of a word
# What a byte counts in a word, 0 where it is in none; those of other than ASCII are in words alone, see _bytes_of.
_VALUES = np.arange(256, dtype=np.uint64)
for _code in range(128):
    _VALUES[_code] = ord(chr(_code).lower()) if _WORD.fullmatch(chr(_code)) else 0


class _Vocabulary(dict[int, int]):
    """Numbers words from 1 in the order in which they are met."""

    def __missing__(self, word: int) -> int:
        number = self[word] = len(self) + 1
        return number


def number_words(texts: Iterable[str], least: int) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Number all words, without case, from 1 in the order in which they are met.

    Args:
        least: a text of fewer words, but of some, is filled up with 0 to as many.

    Returns: the numbers of all texts, one behind the other; how many each text has; how many words differ.
    """
    vocabulary = _Vocabulary()
    words = array("i")  # grows in place
    lengths: list[NDArray[np.int64]] = []
    for block in _blocks(texts):
        hashes, counts = _hashes(block)
        places, distinct = pd.factorize(hashes)
        known = np.array([vocabulary[word] for word in distinct.tolist()], dtype=np.int32)
        filled = np.where((counts > 0) & (counts < least), least, counts)
        numbers = np.zeros(int(filled.sum()), dtype=np.int32)
        shift = np.cumsum(filled - counts) - (filled - counts)  # by what was filled up before
        if len(places):
            numbers[np.arange(len(places)) + np.repeat(shift, counts)] = known[places]
        words.frombytes(numbers.tobytes())
        lengths.append(filled)
    all_lengths = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)
    return np.frombuffer(words, dtype=np.int32), all_lengths, len(vocabulary)


def _blocks(texts: Iterable[str]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for text in texts:
        block.append(_bytes_of(text))
        size += len(block[-1])
        if size > BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _bytes_of(text: str) -> bytes:
    """Bytes with the words of a text, parted by bytes of ASCII that are in none.

    Most texts are that as they are; the words of others are found in characters.
    """
    if not text.isascii():
        for mark in _MARKS:
            text = text.replace(mark, " ")
    if not text.isascii():
        text = " ".join(_WORD.findall(text.casefold()))
    return text.encode()


def _hashes(block: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every word, and how many words each text has."""
    content = b" ".join(block) + b" "
    values = _VALUES[np.frombuffer(content, dtype=np.uint8)]
    inside = np.append(False, values != 0)  # before the first byte there is no word
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[::2], edges[1::2]  # the last byte is in no word
    sums = np.append(np.uint64(0), np.cumsum(values * _powers(BASE, len(values))))
    hashes = (sums[ends] - sums[begins]) * _powers(_INVERSE, len(values))[begins]
    limits = np.cumsum([len(text) + 1 for text in block])
    counts = np.diff(np.searchsorted(begins, limits), prepend=0)
    return hashes, counts


_INVERSE = pow(BASE, -1, 1 << 64)
_KNOWN_POWERS: dict[int, NDArray[np.uint64]] = {}


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """base**0, base**1, ... modulo 2**64; as many as were ever needed are kept."""
    known = _KNOWN_POWERS.get(base)
    if known is None or len(known) < count:
        factors = np.full(max(count, 2 * BLOCK), base, dtype=np.uint64)
        factors[0] = 1
        known = _KNOWN_POWERS[base] = np.cumprod(factors)
    return known[:count]
