"""The stage of a scorer that is made of other parts than what is trained."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plain_scorer import PlainScorer

from components.artifacts import read_json
from components.config import Params
from components.data.rows import Comparison, read_rows
from components.digests import digest
from components.errors import ConfigError, DataError
from components.place import Place
from components.stages import perform

GOLD = {"source": "rubric", "weight": 1.0}
TRAINED = {"source": "trained", "weight": 1.0}
MINE = """
def words(prompts, responses):
    return [len(response.split()) for response in responses]

def of_kind(prompts, responses, *, kind):
    return [1.0 for _ in kind]

def of_answer(prompts, responses, *, answer):
    return [1.0 for _ in answer]
"""


def function(name: str, weight: float) -> dict[str, Any]:
    called = f"words_of_mine:{name}"
    return {"source": "function", "weight": weight, "function": called, "batch_size": 3, "timeout_seconds": 60.0}


@pytest.fixture(autouse=True)
def a_module_of_mine(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Path("words_of_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(world)
    yield
    sys.modules.pop("words_of_mine", None)


@pytest.fixture
def made(change_params: Callable[..., Params]) -> Callable[..., None]:
    """Runs the stage with these parts."""

    def make(**parts: Any) -> None:
        params = change_params(reward_model={"parts": parts, "files": "words_of_mine.py"})
        perform("reward_model", params, Place())

    return make


def without_comparisons() -> None:
    for path in Place().clean.glob("comparisons_*.jsonl"):
        path.write_text("")


def test_a_rubric_needs_no_comparisons_and_is_held_against_none(made: Callable[..., None]) -> None:
    without_comparisons()
    made(gold=GOLD)
    assert read_json(Place().reward_model / "metrics.json") == {"comparisons": 0, "comparisons_heldout": 0}
    assert read_json(Place().reward_model / "calibration.json") == []
    assert [path.name for path in (Place().reward_model / "model").iterdir()] == ["scorer.json"]


def test_the_whole_scorer_is_held_against_comparisons(made: Callable[..., None]) -> None:
    alone = digest(Place().reward_model / "model")
    made(learned=TRAINED, words=function("words", 0.5))
    assert digest(Place().reward_model / "model" / "trained") == alone  # what is trained does not know of the other
    rows = read_rows(Place().clean / "comparisons_reward_model_heldout.jsonl", Comparison)
    plain = PlainScorer("reward_model", "trained")
    margins = [
        plain(row.prompt, row.chosen)
        - plain(row.prompt, row.rejected)
        + 0.5 * (len(row.chosen.split()) - len(row.rejected.split()))
        for row in rows
    ]
    metrics = read_json(Place().reward_model / "metrics.json")
    assert metrics["accuracy_heldout"] == pytest.approx(statistics.mean(margin > 0 for margin in margins))
    assert metrics["comparisons_heldout"] == len(rows) and "expected_calibration_error" not in metrics


def test_comparisons_without_a_column_that_is_asked_for_measure_nothing(
    made: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    made(kinds=function("of_kind", 1.0))  # the prompts have kinds, the comparisons none
    assert read_json(Place().reward_model / "metrics.json") == {"comparisons": 0, "comparisons_heldout": 0}
    assert "not held against the held-out comparisons" in caplog.text and "kind" in caplog.text


def test_what_is_trained_needs_comparisons(made: Callable[..., None]) -> None:
    without_comparisons()
    with pytest.raises(DataError, match="no comparisons to train on"):
        made(learned=TRAINED, words=function("words", 0.5))


def test_a_column_that_prompts_lack_is_refused_before_anything_is_trained(made: Callable[..., None]) -> None:
    before = digest(Place().reward_model)
    with pytest.raises(ConfigError, match="does not have: answer") as caught:
        made(learned=TRAINED, mine=function("of_answer", 1.0))
    assert "id, kind, messages" in caught.value.expected and digest(Place().reward_model) == before
