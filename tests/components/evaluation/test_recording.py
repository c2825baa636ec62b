"""What MLflow is told of an evaluation, from hand-made records: the texts and numbers are by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from components.config import Evaluation
from components.evaluation.recording import description, figure_rows, pair_rows, record_curves
from components.measuring.compare import compare
from components.measuring.records import Record
from components.tracking import StageRun


class Heard(StageRun):
    """Keeps the metrics that it is told, as (step, name) -> value."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[tuple[int, str], float] = {}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.told |= {(step, name): value for name, value in values.items()}


def test_every_pair_is_a_row_with_the_texts_and_gold_first(sft: list[Record], candidate: list[Record]) -> None:
    rows = pair_rows(sft, candidate[::-1])
    assert len(rows) == 8
    names = list(rows[0])
    assert names[:7] == ["prompt", "sft", "candidate", "gold sft", "gold candidate", "judge sft", "judge candidate"]
    assert names[-3:] == ["kind", "sample", "prompt_id"]
    for row in rows:
        assert row["prompt"] == f"question {row['prompt_id']} ?"
        assert (row["sft"], row["candidate"]) == ("Please swap the fuse.", "You should swap the fuse.")
        assert (row["gold sft"], row["gold candidate"]) == (0.5, 0.8)
    assert {(row["prompt_id"], row["sample"]) for row in rows} == {(r.prompt_id, r.sample) for r in sft}


def test_the_intervals_are_a_table(sft: list[Record], candidate: list[Record], settings: Evaluation) -> None:
    rows: dict[str, Any] = {row["figure"]: row for row in figure_rows(compare(sft, candidate, settings))}
    gold = rows["Gold"]
    assert (gold["sft"], gold["candidate"], gold["difference"]) == pytest.approx((0.5, 0.8, 0.3))
    assert (gold["difference_low"], gold["difference_high"]) == pytest.approx((0.3, 0.3))
    assert rows["Win rate"]["candidate"] == 1.0 and rows["Win rate"]["candidate_low"] < 1.0


def test_curves_go_through_all_cycles() -> None:
    training = [{"cycle": cycle, "iteration": 2 * cycle - 1 + k, "kl": 0.5 * cycle} for cycle in (1, 2) for k in (0, 1)]
    cycles = [{"cycle": number, "judge": 0.1 * number, "kl": 1.0 * number, "sqrt_kl": 9.0} for number in (0, 1, 2)]
    heard = Heard()
    record_curves(heard, training, cycles)
    assert heard.told == {
        **{(1, "train/kl"): 0.5, (2, "train/kl"): 0.5, (3, "train/kl"): 1.0, (4, "train/kl"): 1.0},
        **{(0, "validation/judge"): 0.0, (1, "validation/judge"): 0.1, (2, "validation/judge"): 0.2},
        **{(0, "validation/kl"): 0.0, (1, "validation/kl"): 1.0, (2, "validation/kl"): 2.0},
    }


def test_the_description_says_what_was_decided_and_where_the_report_is(
    sft: list[Record], candidate: list[Record], settings: Evaluation
) -> None:
    decided = "REFUSED: policy version 3 stays a candidate, because KL is 9"
    lines = description(compare(sft, candidate, settings), decided, "#/report").split("\n")
    assert lines[0] == decided
    assert lines[2] == "Gold rose by 0.300 [0.300, 0.300]. [Report](#/report)"
    assert "| Gold | 0.500 | 0.800 | +0.300 [0.300, 0.300] |" in lines
    assert "| KL to SFT | 0.00 | 2.00 | +2.00 [2.00, 2.00] |" in lines


def test_nothing_is_said_of_a_decision_that_there_was_not(
    sft: list[Record], candidate: list[Record], settings: Evaluation
) -> None:
    text = description(compare(sft, candidate, settings), None, None)
    assert text.startswith("Gold rose by 0.300") and "Report" not in text
