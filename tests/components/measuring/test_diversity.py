from __future__ import annotations

import numpy as np
import pytest
from records_by_hand import record

from components.measuring.diversity import distinct_intervals, distinct_n, ngrams
from components.measuring.intervals import Interval
from components.measuring.records import Record

DIALS = {"confidence": 0.95}


def records(responses: list[str]) -> list[Record]:
    return [record(f"p{k}", response=text) for k, text in enumerate(responses)]


def test_where_every_response_is_the_same_nothing_varies() -> None:
    same = records(["yes yes"] * 5)  # 1 distinct word of 10, however the prompts are drawn

    found = distinct_intervals(same, same, 1, **DIALS)

    assert found["sft"] == found["candidate"] == Interval(0.1, pytest.approx(0.1), pytest.approx(0.1))
    assert found["difference"] == Interval(0.0, 0.0, 0.0)


def test_the_intervals_cover_the_expected_value_as_often_as_they_say() -> None:
    """Words with Zipf's frequencies; the truth is the mean of distinct-n over all simulated measurements."""
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, 201)
    simulations = 400

    def policy() -> list[Record]:
        words = random.choice(200, size=(30, 6), p=weights / weights.sum())
        return records([" ".join(f"w{word}" for word in row) for row in words])

    for n in (1, 2):
        found = [distinct_intervals(policy(), policy(), n, **DIALS) for _ in range(simulations)]
        for side in ("sft", "difference"):
            truth = 0.0 if side == "difference" else np.mean([one[side].mean for one in found])
            covered = np.mean([one[side].low <= truth <= one[side].high for one in found])
            assert covered == pytest.approx(0.95, abs=0.044), (n, side)  # reason: four standard errors of 400 draws


def test_pairing_takes_away_what_both_policies_share() -> None:
    one = records([f"w{k} w{k // 2}" for k in range(20)])
    other = records([f"w{k} w{k // 2}" for k in range(20)])
    assert distinct_intervals(one, other, 2, **DIALS)["difference"] == Interval(0.0, 0.0, 0.0)


def test_a_response_shorter_than_n_words_has_no_ngrams() -> None:
    found = distinct_intervals(records(["a", "b"]), records(["a b", "b a"]), 2, **DIALS)
    assert found["sft"].mean == 0.0
    assert found["candidate"].mean == 1.0


def test_other_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="different prompts"):
        distinct_intervals(records(["a", "b"]), records(["a", "b"])[::-1], 1, **DIALS)


def test_ngrams() -> None:
    assert ngrams("a b  a\tb", 2) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert ngrams("a", 2) == []
    assert ngrams("", 1) == []


def test_distinct_n_by_hand() -> None:
    responses = ["a b a", "b a b c"]
    # Words a b a b a b c: 3 of 7. Pairs ab ba | ba ab bc: 3 of 5; none runs from one response into the next.
    assert distinct_n(responses, 1) == pytest.approx(3 / 7)
    assert distinct_n(responses, 2) == pytest.approx(3 / 5)
    assert distinct_n(["a", ""], 2) == 0.0
