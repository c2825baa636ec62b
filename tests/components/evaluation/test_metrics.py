from __future__ import annotations

import pytest

from components.evaluation.metrics import (
    by_prompt,
    distinct_n,
    ngrams,
    prompt_means,
    prompt_win_rates,
)


def row(prompt: str, sample: int, judge: float, response: str = "") -> dict[str, object]:
    return {"prompt_id": prompt, "sample": sample, "judge": judge, "response": response or f"{prompt}{judge}"}


def test_samples_of_a_prompt_are_averaged_before_anything_else() -> None:
    records = [row("b", 0, 1.0), row("a", 0, 5.0), row("b", 1, 2.0), row("b", 2, 6.0)]

    assert list(by_prompt(records)) == ["b", "a"]
    assert prompt_means(records, "judge") == [3.0, 5.0]


def test_truth_values_count_as_one_and_zero() -> None:
    records = [{"prompt_id": "a", "sample": k, "ended": ended} for k, ended in enumerate([True, False])]
    assert prompt_means(records, "ended") == [0.5]


def test_win_rate_by_hand() -> None:
    sft = [row("a", 0, 1.0), row("a", 1, 2.0), row("b", 0, 3.0), row("b", 1, 3.0)]
    candidate = [row("a", 0, 1.5), row("a", 1, 1.0), row("b", 0, 4.0), row("b", 1, 3.0)]
    # a: 1.5 loses to 2, 1 ties with 1; b: 4 wins over 3, 3 ties with 3.
    assert prompt_win_rates(candidate, sft) == [0.25, 0.75]


def test_samples_of_one_number_which_share_their_random_numbers_are_not_held_against_each_other() -> None:
    sft = [row("a", 0, 0.0), row("a", 1, 5.0), row("a", 2, 9.0)]
    candidate = [row("a", 0, 1.0), row("a", 1, 6.0), row("a", 2, 10.0)]
    # Each wins by 1 over its own number; against the others 1 loses twice, 6 wins once, 10 wins twice.
    assert prompt_win_rates(candidate, sft) == [0.5]


def test_equal_responses_tie_whatever_the_last_bits_of_their_scores_say() -> None:
    sft = [row("a", 0, 1.0, "yes ."), row("a", 1, 1.0, "yes .")]
    assert prompt_win_rates([row("a", 0, 1.0 + 1e-7, "yes ."), row("a", 1, 1.0, "yes .")], sft) == [0.5]


def test_samples_are_told_apart_by_number_and_not_by_place() -> None:
    sft = [row("a", 1, 9.0), row("a", 0, 0.0)]
    candidate = [row("a", 0, 1.0), row("a", 1, 8.0)]
    assert prompt_win_rates(candidate, sft) == [0.5]  # 1 < 9, 8 > 0


@pytest.mark.parametrize(
    "candidate",
    [
        [row("b", 0, 1.0), row("b", 1, 1.0)],
        [row("a", 1, 1.0), row("a", 2, 1.0)],
        [row("a", 0, 1.0)],
        [row("a", 0, 1.0), row("a", 1, 1.0), row("b", 0, 1.0)],
    ],
)
def test_records_that_do_not_pair_are_refused(candidate: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError):
        prompt_win_rates(candidate, [row("a", 0, 1.0), row("a", 1, 2.0)])


def test_one_sample_a_prompt_has_no_independent_one_to_be_held_against() -> None:
    with pytest.raises(ValueError, match="two or more samples"):
        prompt_win_rates([row("a", 0, 1.0)], [row("a", 0, 1.0)])


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
