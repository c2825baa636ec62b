"""Words of texts as numbers, by hand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data_validation import words
from components.data_validation.words import number_words


def test_words_are_numbered_in_the_order_in_which_they_are_met() -> None:
    numbers, lengths, distinct = number_words(["B a, b!", "", "?!", "A", "a  c_1", "d b a e"], 3)
    assert numbers.tolist() == [1, 2, 1, 2, 0, 0, 2, 3, 0, 4, 1, 2, 5]
    assert lengths.tolist() == [3, 0, 0, 3, 3, 4]
    assert distinct == 5


def test_there_may_be_none() -> None:
    for texts in ([], ["", " . "]):
        numbers, lengths, distinct = number_words(texts, 3)
        assert (numbers.tolist(), lengths.tolist(), distinct) == ([], [0] * len(texts), 0)


@settings(deadline=None)  # the first call makes the table of powers
@given(st.lists(st.text(alphabet="aAbZ09_ .\t\x00\u2019\u2014\u00c9\u00e9\u00df\u0130\u4f60\u0301"), max_size=8))
@pytest.mark.parametrize("block", [1, 1 << 18])
def test_words_are_those_of_python_without_case(block: int, texts: list[str]) -> None:
    """Python's own casefold and word characters, and a dict in place of hashes."""
    known: dict[str, int] = {}
    expected = []
    for text in texts:
        found = [known.setdefault(word, len(known) + 1) for word in re.findall(r"\w+", text.casefold())]
        expected.append(found + [0] * (3 - len(found)) if found else [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "BLOCK", block)
        numbers, lengths, distinct = number_words(texts, 3)
    assert numbers.tolist() == [number for each in expected for number in each]
    assert lengths.tolist() == [len(each) for each in expected]
    assert distinct == len(known)
