from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data_validation import near_duplicates, words
from components.data_validation.near_duplicates import repeated_texts, twins_between

TWELVE = "one two three four five six seven eight nine ten eleven twelve"  # ten shingles of three words


def jaccard(first: str, second: str) -> float:
    """The definition, for texts of three or more words."""
    a, b = ({tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (first.split(), second.split()))
    return len(a & b) / len(a | b)


def test_one_word_more_is_ten_shingles_of_eleven() -> None:
    longer = TWELVE + " thirteen"
    assert repeated_texts([TWELVE, longer], 10 / 11) == {1: 0}
    assert repeated_texts([TWELVE, longer], 0.91) == {}


def test_one_word_changed_in_the_middle_touches_three_shingles() -> None:
    changed = TWELVE.replace("six", "6")  # 7 shared of 13
    assert repeated_texts([TWELVE, changed], 7 / 13) == {1: 0}
    assert repeated_texts([TWELVE, changed], 0.54) == {}


def test_case_and_punctuation_do_not_count() -> None:
    assert repeated_texts(["Please, swap the FUSE!", "please swap the fuse", "please keep the fuse"], 1.0) == {1: 0}


def test_texts_of_fewer_than_three_words_are_compared_whole() -> None:
    assert repeated_texts(["yes", "no", "yes .", "yes no", "no yes"], 0.9) == {2: 0}


def test_texts_without_words_are_similar_to_none() -> None:
    assert repeated_texts(["", "?!", "?!", "..."], 0.5) == {}
    assert repeated_texts([], 0.5) == {}
    assert twins_between([], ["a"], 0.5) == {}


def test_neighbouring_texts_do_not_run_into_each_other() -> None:
    assert repeated_texts(["a b c d", "e f g h", "c d e f"], 0.1) == {}


def test_copies_are_counted_once_each() -> None:
    assert repeated_texts([TWELVE] * 4, 0.9) == {1: 0, 2: 0, 3: 0}


def test_twins_are_looked_for_in_the_known_texts_only() -> None:
    assert twins_between([TWELVE, "something else entirely here"], [TWELVE + " thirteen", "new", "new"], 0.9) == {0: 0}


texts = st.lists(st.sampled_from("abcd"), min_size=3, max_size=9).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(
    known=st.lists(texts, min_size=1, max_size=8),
    asked=st.lists(texts, min_size=1, max_size=8),
    similarity=st.sampled_from([0.2, 0.5, 0.7, 0.8, 1.0]),
)
def test_finds_what_comparing_all_pairs_finds(known: list[str], asked: list[str], similarity: float) -> None:
    found = twins_between(known, asked, similarity)
    for position, text in enumerate(asked):
        similar = {other for other, name in enumerate(known) if jaccard(text, name) >= similarity - 1e-12}
        assert (position in found) == bool(similar)
        assert not similar or found[position] in similar


def test_ten_thousand_rows_take_about_a_second() -> None:
    draw = random.Random(3)
    vocabulary = [f"word{i}" for i in range(400)]
    rows = [" ".join(draw.choices(vocabulary, k=35)) for _ in range(10_000)]
    start = time.process_time()
    assert repeated_texts([*rows, rows[7] + " indeed"], 0.9) == {10_000: 7}
    assert time.process_time() - start < 5.0  # about 1 s on an idle core


@settings(max_examples=100, deadline=None)
@given(known=st.lists(texts, max_size=9), asked=st.lists(texts, max_size=9), block=st.sampled_from([1, 5, 50]))
def test_blocks_change_nothing(known: list[str], asked: list[str], block: int) -> None:
    whole = [repeated_texts(known + asked, 0.7), twins_between(known, asked, 0.7)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "BLOCK", block)
        patch.setattr(words, "BLOCK", block)
        assert [repeated_texts(known + asked, 0.7), twins_between(known, asked, 0.7)] == whole


@pytest.mark.parametrize(
    ("text", "twin"),
    [
        ("Don\u2019t \u201cstop\u201d \u2014 now\u2026", "don t stop now"),
        ("caf\u00e9 stra\u00dfe na\u00efve", "CAF\u00c9 STRASSE NA\u00cfVE"),
        ("a_1\x1fb\x00c", "A_1 b c"),
    ],
)
def test_words_are_the_same_by_the_quick_way_and_by_the_other(text: str, twin: str) -> None:
    assert repeated_texts([text, twin, twin + " \u00e9"], 1.0) == {1: 0}
    assert repeated_texts([text + " \u00e9", twin + " \u00e9", twin], 1.0) == {1: 0}
