from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from records_by_hand import changed, record

from components.artifacts import read_jsonl, write_jsonl
from components.errors import ArtifactError
from components.measuring.metrics import metrics_among, parts_among
from components.measuring.records import (
    Record,
    by_prompt,
    means,
    prompt_means,
    prompt_win_rates,
    read_records,
    write_records,
)


def row(prompt: str, sample: int, judge: float, response: str = "") -> Record:
    return record(prompt, sample, judge=judge, response=response or f"{prompt}{judge}")


def test_samples_of_a_prompt_are_averaged_before_anything_else() -> None:
    records = [row("b", 0, 1.0), row("a", 0, 5.0), row("b", 1, 2.0), row("b", 2, 6.0)]

    assert list(by_prompt(records)) == ["b", "a"]
    assert prompt_means(records, "judge") == {"b": 3.0, "a": 5.0}


def test_truth_values_count_as_one_and_zero() -> None:
    records = [record("a", k, ended=ended) for k, ended in enumerate([True, False])]
    assert prompt_means(records, "ended") == {"a": 0.5}
    assert means(records)["ended"] == 0.5


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
    sft = [row("a", 0, 1.0, "Yes."), row("a", 1, 1.0, "Yes.")]
    assert prompt_win_rates([row("a", 0, 1.0 + 1e-7, "Yes."), row("a", 1, 1.0, "Yes.")], sft) == [0.5]


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
def test_records_that_do_not_pair_are_refused(candidate: list[Record]) -> None:
    with pytest.raises(ValueError):
        prompt_win_rates(candidate, [row("a", 0, 1.0), row("a", 1, 2.0)])


def test_one_sample_a_prompt_has_no_independent_one_to_be_held_against() -> None:
    with pytest.raises(ValueError, match="two or more samples"):
        prompt_win_rates([row("a", 0, 1.0)], [row("a", 0, 1.0)])


def test_means_are_of_all_that_was_measured_and_of_nothing_else() -> None:
    found = means([record("a", 0, kl=1.0, gold=0.0), record("b", 3, kl=2.0, gold=1.0)])
    assert (found["kl"], found["gold"]) == (1.5, 0.5)
    assert found.keys() == {
        *("response_tokens", "ended", "reward", "judge", "kl", "entropy", "gold", "helpful", "harmless", "honest")
    }


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = {
        "sft": [record("p1", 0, gold=0.25), record("p1", 1)],
        "candidate": [dataclasses.replace(changed(record("p2"), kind=None), rubric={})],
    }
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records
    assert list(read_jsonl(tmp_path / "records.jsonl")[0]) == [
        *("policy", "prompt_id", "prompt", "kind", "sample", "response", "response_tokens", "ended", "reward", "judge"),
        *("kl", "entropy", "helpful", "harmless", "honest", "gold"),
    ]


def test_an_incomplete_record_is_refused_by_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, {"sft": [record("p1"), record("p2")]})
    rows = read_jsonl(path)
    del rows[1]["kl"]
    write_jsonl(path, rows)
    with pytest.raises(ArtifactError, match=r"(?s)records\.jsonl, row 2.*no kl"):
        read_records(path)


def test_the_parts_of_scorers_are_kept_apart_from_the_rubrics(tmp_path: Path) -> None:
    one = dataclasses.replace(record("a"), parts={"reward/correct": 1.0, "judge/words": 3.0})
    write_records(tmp_path / "records.jsonl", {"sft": [one]})
    assert read_records(tmp_path / "records.jsonl") == {"sft": [one]}
    (written,) = read_jsonl(tmp_path / "records.jsonl")
    assert written["reward/correct"] == 1.0 and written["gold"] == one.rubric["gold"]
    names = [metric.name for metric in metrics_among(one.numbers())]
    assert names[-2:] == ["reward/correct", "judge/words"]
    assert parts_among(one.numbers()) == ["helpful", "harmless", "honest"]
