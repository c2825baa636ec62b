from __future__ import annotations

import math
from typing import Any

import pytest

from components.evaluation.diversity import distinct_intervals
from components.statistics import Interval

DIALS = {"resamples": 4000, "confidence": 0.95, "seed": 3}


def records(responses: list[str]) -> list[dict[str, Any]]:
    return [{"prompt_id": f"p{k}", "sample": 0, "response": text} for k, text in enumerate(responses)]


def test_where_every_response_is_the_same_nothing_varies() -> None:
    same = records(["yes yes"] * 5)  # 1 distinct word of 10, however the prompts are drawn

    found = distinct_intervals(same, same, 1, **DIALS)

    assert found["sft"] == found["candidate"] == Interval(0.1, pytest.approx(0.1), pytest.approx(0.1))
    assert found["difference"] == Interval(0.0, 0.0, 0.0)


def test_the_interval_has_the_known_spread_and_is_centred_at_what_was_measured() -> None:
    """With one word a prompt, all different, a resample's ratio is the share of prompts that it drew at all.

    Its variance is that of the number of occupied cells when n balls fall into n cells (Feller 1968, ch. IV).
    """
    n = 60
    found = distinct_intervals(records([f"w{k}" for k in range(n)]), records(["w"] * n), 1, **DIALS)

    variance = n * (n - 1) * (1 - 2 / n) ** n + n * (1 - 1 / n) ** n - n**2 * (1 - 1 / n) ** (2 * n)
    half = 1.96 * math.sqrt(variance) / n
    assert found["sft"].mean == 1.0
    assert found["sft"].low == pytest.approx(
        1.0 - half, abs=0.012
    )  # reason: a bootstrap over 60 prompts moves in steps of 1/60
    assert found["sft"].high == pytest.approx(
        1.0 + half, abs=0.012
    )  # reason: a bootstrap over 60 prompts moves in steps of 1/60
    assert found["difference"].mean == pytest.approx(1 / n - 1.0)


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
