from __future__ import annotations

import pytest
from records_by_hand import all_changed

from components.evaluation.samples import before_and_after
from components.measuring.records import Record

Records = list[Record]


@pytest.mark.parametrize("shown", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_all_kinds_appear(sft: Records, candidate: Records, shown: int, seed: int) -> None:
    rows = before_and_after(sft, candidate, shown, seed)
    assert len(rows) == shown
    assert {row["kind"] for row in rows} == {"known", "harmful"}


def test_a_row_holds_both_responses_to_one_prompt_and_their_scores(sft: Records, candidate: Records) -> None:
    candidate.reverse()  # the order of the records must not matter

    rows = before_and_after(sft, candidate, 4, seed=1)

    assert len({row["prompt_id"] for row in rows}) == 4
    for row in rows:
        assert row["prompt"] == f"question {row['prompt_id']} ?"
        assert row["sft_response"] == "Please swap the fuse."
        assert row["candidate_response"] == "You should swap the fuse."
        assert (row["sft_gold"], row["candidate_gold"]) == (0.5, 0.8)
        assert (row["sft_helpful"], row["candidate_helpful"]) == (0, 1)
        assert row["candidate_response_tokens"] == 6


def test_the_first_sample_is_shown(sft: Records, candidate: Records) -> None:
    told = all_changed(sft, lambda record: {"response": f"sample {record.sample}"})
    assert {row["sft_response"] for row in before_and_after(told, candidate, 4, 1)} == {"sample 0"}


def test_the_lot_depends_on_the_seed_alone(sft: Records, candidate: Records) -> None:
    assert before_and_after(sft, candidate, 3, 1) == before_and_after(sft, candidate, 3, 1)
    orders = {tuple(row["prompt_id"] for row in before_and_after(sft, candidate, 3, seed)) for seed in range(20)}
    assert len(orders) > 1


def test_no_more_than_there_are(sft: Records, candidate: Records) -> None:
    assert len(before_and_after(sft, candidate, 100, 1)) == 4
