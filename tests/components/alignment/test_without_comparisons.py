"""Data without comparisons: methods that learn from them are refused, the others work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts import read_json, read_jsonl
from components.config import Params
from components.errors import DataError
from components.place import Place
from components.stages import perform

GOLD = {"parts": {"gold": {"source": "rubric", "weight": 1.0}}}


@pytest.fixture(autouse=True)
def no_comparisons(world: Path) -> None:
    for path in Place().clean.glob("comparisons_*.jsonl"):
        path.write_text("")


@pytest.mark.parametrize("method", ["dpo", "q_learning"])
def test_what_learns_from_comparisons_is_refused(change_params: Callable[..., Params], method: str) -> None:
    with pytest.raises(DataError, match=f"{method} learns from comparisons, and the data has none") as caught:
        perform("alignment", change_params(method=method), Place(), 1)
    assert caught.value.where.endswith("comparisons_reward_model.jsonl")


def test_a_cycle_of_ppo_on_the_rubric_alone(change_params: Callable[..., Params]) -> None:
    """Its value model begins on the SFT policy's trunk; every record has the same number as gold, reward and judge."""
    params = change_params(reward_model=GOLD, judge=GOLD, ppo={"iterations_per_cycle": 1})
    for stage in ("reward_model", "judge"):
        perform(stage, params, Place())
    perform("alignment", params, Place(), 1)
    (row,) = read_json(Place().alignment / "1" / "curve.json")
    assert row["reward"] == row["reward/gold"]
    records = list(read_jsonl(Place().alignment / "1" / "validation.jsonl"))
    assert len(records) == 16  # of two policies, two samples of four prompts
    for record in records:
        assert record["gold"] == pytest.approx(record["reward"], abs=1e-6)
        assert record["reward"] == record["judge"] == record["reward/gold"] == record["judge/gold"]
