from __future__ import annotations

import json

import pytest
from records_by_hand import all_changed, record

from components.evaluation.samples import MOST_PAIRS, all_pairs, drawn_by_lot, for_page, worst
from components.measuring.records import Record

Records = list[Record]


@pytest.mark.parametrize("shown", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_all_kinds_appear(sft: Records, candidate: Records, shown: int, seed: int) -> None:
    rows = drawn_by_lot(all_pairs(sft, candidate), shown, seed)
    assert len(rows) == shown
    assert {row["kind"] for row in rows} == {"known", "harmful"}


def test_a_row_holds_both_responses_to_one_prompt_and_their_scores(sft: Records, candidate: Records) -> None:
    candidate.reverse()  # the order of the records must not matter

    rows = drawn_by_lot(all_pairs(sft, candidate), 4, seed=1)

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
    assert {row["sft_response"] for row in drawn_by_lot(all_pairs(told, candidate), 4, 1)} == {"sample 0"}


def test_the_lot_depends_on_the_seed_alone(sft: Records, candidate: Records) -> None:
    pairs = all_pairs(sft, candidate)
    assert drawn_by_lot(pairs, 3, 1) == drawn_by_lot(pairs, 3, 1)
    orders = {tuple(row["prompt_id"] for row in drawn_by_lot(pairs, 3, seed)) for seed in range(20)}
    assert len(orders) > 1


def test_no_more_than_there_are(sft: Records, candidate: Records) -> None:
    assert len(drawn_by_lot(all_pairs(sft, candidate), 100, 1)) == 4


def test_the_worst_are_those_that_lost_most_and_no_others(sft: Records, candidate: Records) -> None:
    lost = {("p1", 0): 0.4, ("p3", 1): -0.5, ("p4", 0): 0.5}  # 0.1 below SFT's 0.5, 1.0 below, as good
    other = all_changed(candidate, lambda one: {"gold": lost.get((one.prompt_id, one.sample), 0.8)})
    found = worst(all_pairs(sft, other), "gold", 5)
    assert [(pair["prompt_id"], pair["sample"]) for pair in found] == [("p3", 1), ("p1", 0)]
    assert len(worst(all_pairs(sft, other), "gold", 1)) == 1


def test_the_page_holds_every_pair_in_the_order_of_the_records(sft: Records, candidate: Records) -> None:
    pairs = all_pairs(sft, candidate)
    rows = json.loads(for_page(pairs, pairs[3:4], "gold", ["gold", "helpful"]))
    plain = ["known", "question p1 ?", "please swap the fuse .", "you should swap the fuse .", [0.5, 0.0], [0.8, 1.0]]
    assert rows[0] == [*plain, 0.3, None]
    assert [row[1] for row in rows] == [
        f"question {name} ?" for name in ("p1", "p1", "p2", "p2", "p3", "p3", "p4", "p4")
    ]
    assert [row[7] for row in rows] == [None, None, None, 0, None, None, None, None]


def test_of_very_many_pairs_those_that_moved_most_are_kept() -> None:
    many = [record(f"p{number}", gold=0.0) for number in range(MOST_PAIRS + 10)]
    moved = [record(f"p{number}", gold=float(number)) for number in range(MOST_PAIRS + 10)]
    pairs = all_pairs(many, moved)
    gains = [row[6] for row in json.loads(for_page(pairs, pairs[1005:1006], "gold", ["gold"]))]
    half = MOST_PAIRS // 2
    assert gains == [*range(half), 1005, *range(half + 10, MOST_PAIRS + 10)]
