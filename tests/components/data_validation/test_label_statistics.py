from __future__ import annotations

from typing import Any

import pytest

from components.data_validation.comparison_keys import keys
from components.data_validation.labels import AnnotatorRecord, LabelStatistics, label_statistics


def statistics_of(rows: list[dict[str, Any]]) -> LabelStatistics:
    return label_statistics(rows, keys(1))


def labels_of(prompt: str, votes: str, annotators: str | None = None) -> list[dict[str, Any]]:
    """One row a vote: "a" prefers response a, "b" response b. Annotators are named by one letter each."""
    rows = [
        {"prompt": prompt, "chosen": vote, "rejected": "b" if vote == "a" else "a", "raw_row": i + 1}
        for i, vote in enumerate(votes)
    ]
    if annotators is not None:
        for row, annotator in zip(rows, annotators, strict=True):
            row["annotator"] = annotator
    return rows


def test_agreement_is_the_share_of_agreeing_label_pairs() -> None:
    # 3 labels a a b: 1 of 3 pairs agrees; 2 labels b b: 1 of 1; 1 label: no pair.
    rows = labels_of("p", "aab", "xyz") + labels_of("q", "bb", "xy") + labels_of("r", "a", "z")
    statistics = statistics_of(rows)
    assert (statistics.agreeing_label_pairs, statistics.label_pairs) == (2, 4)
    assert statistics.agreement == 0.5
    assert statistics.labels_per_pair == {1: 1, 2: 1, 3: 1}
    assert statistics.contradicted_rows == [[1, 2, 3]]
    assert statistics.self_contradicted_rows == []


def test_annotators_are_compared_with_the_majority_of_the_others() -> None:
    # p: x sees a b (tie), y sees a b (tie), z sees a a and says b. q: x and y see each other.
    statistics = statistics_of(labels_of("p", "aab", "xyz") + labels_of("q", "bb", "xy"))
    assert statistics.annotators == {
        "x": AnnotatorRecord(labels=2, compared=1, agreeing=1),
        "y": AnnotatorRecord(labels=2, compared=1, agreeing=1),
        "z": AnnotatorRecord(labels=1, compared=1, agreeing=0),
    }


def test_an_annotators_own_labels_are_no_agreement() -> None:
    # x says a and b, y says a: two label pairs of different annotators, one agrees; x contradicts itself.
    statistics = statistics_of(labels_of("p", "aba", "xxy"))
    assert (statistics.agreeing_label_pairs, statistics.label_pairs) == (1, 2)
    assert statistics.self_contradicted_rows == [[1, 2]]
    assert statistics.annotators["x"] == AnnotatorRecord(labels=2, compared=2, agreeing=1)
    assert statistics.annotators["y"] == AnnotatorRecord(labels=1, compared=0, agreeing=0)
    assert statistics.annotators["y"].agreement is None
    # x says a twice, y says a: two label pairs of different annotators, both agree.
    repeated = statistics_of(labels_of("p", "aaa", "xxy"))
    assert (repeated.agreeing_label_pairs, repeated.label_pairs) == (2, 2)


def test_unnamed_labels_are_annotators_of_their_own() -> None:
    statistics = statistics_of([row | {"pair": "q"} for row in labels_of("p", "aab")])
    assert statistics.agreement == pytest.approx(1 / 3)
    assert statistics.annotators == {}


def test_the_order_of_the_responses_does_not_matter() -> None:
    rows = labels_of("p", "a", "x") + [{"prompt": "P ", "chosen": "b", "rejected": "a", "annotator": "y", "raw_row": 2}]
    assert statistics_of(rows).agreement == 0.0


def test_few_labels_do_not_stand_against_an_annotator() -> None:
    # Two standard errors of a share are at most 1 / sqrt(n): 0.5 for 4 labels, 0.1 for 100.
    assert not AnnotatorRecord(labels=4, compared=4, agreeing=1).is_clearly_below(0.6)
    assert AnnotatorRecord(labels=100, compared=100, agreeing=49).is_clearly_below(0.6)
    assert not AnnotatorRecord(labels=100, compared=100, agreeing=51).is_clearly_below(0.6)
    assert not AnnotatorRecord(labels=9, compared=0, agreeing=0).is_clearly_below(0.6)


def test_labels_without_name_and_pair_say_nothing_of_agreement() -> None:
    """Of those that agree all but one are gone as duplicates, so the rest could only disagree."""
    statistics = statistics_of(labels_of("p", "ab"))
    assert statistics.agreement is None
    assert statistics.contradicted_rows == [[1, 2]]


def test_labels_of_responses_that_look_alike_belong_together() -> None:
    rows = labels_of("p", "aa", "xy")
    rows[1]["chosen"] = "a\u200b"
    assert statistics_of(rows).agreement == 1.0
