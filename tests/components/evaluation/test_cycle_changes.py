from __future__ import annotations

from pathlib import Path

import pytest
from records_by_hand import record

from components.evaluation.cycles import change_between, validation_records, with_intervals
from components.measuring.records import Record, write_records


def cycle_of(*golds: float, reward: float = 0.0) -> list[Record]:
    return [record(f"p{number}", gold=gold, reward=reward) for number, gold in enumerate(golds)]


def test_the_records_begin_with_the_sft_policys(tmp_path: Path) -> None:
    start, first, second = (cycle_of(gold, gold) for gold in (0.1, 0.2, 0.3))
    write_records(tmp_path / "1.jsonl", {"start": start, "cycle": first})
    write_records(tmp_path / "2.jsonl", {"cycle": second})
    assert validation_records([tmp_path / "1.jsonl", tmp_path / "2.jsonl"]) == [start, first, second]


def test_intervals_stand_beside_what_selection_wrote() -> None:
    rows = [{"cycle": 0, "gold": 0.5, "helpful": 0.0, "judge": 0.0, "sqrt_kl": 0.0}]
    (row,) = with_intervals(rows, [cycle_of(0.4, 0.5, 0.6)], 0.95)
    # Standard error 0.1 / sqrt(3); Student's t of 2 degrees of freedom at 97.5 % is 4.302653.
    reach = 4.302653 * 0.1 / 3**0.5
    assert row["intervals"]["gold"] == pytest.approx({"mean": 0.5, "low": 0.5 - reach, "high": 0.5 + reach}, abs=1e-6)
    # Wilson of 0 of 3: z^2 / (n + z^2).
    assert row["intervals"]["helpful"]["high"] == pytest.approx(1.959964**2 / (3 + 1.959964**2), abs=1e-6)
    assert row["intervals"].keys() == {"gold", "helpful", "judge"}
    assert {name: row[name] for name in rows[0]} == rows[0]


def test_a_change_is_paired_by_prompt() -> None:
    change = change_between([cycle_of(0.1, 0.5, 0.9), cycle_of(0.2, 0.6, 1.0)], 0.95)
    # Every prompt gained the same 0.1, so that the interval has no width, far as the prompts lie apart.
    assert change(0, 1, "gold") == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1}, abs=1e-9)
