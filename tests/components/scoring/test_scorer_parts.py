"""A scorer of several parts: their sum, what does not apply, and how it is stored and found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts import write_json
from components.config import Data
from components.data.rows import Prompt
from components.errors import ArtifactError, ConfigError
from components.scoring.answers import Source
from components.scoring.scorer import SCORER_FILE, Scorer, means_of_parts, trained_folder

ROWS = [Prompt(str(number), "prompt") for number in range(3)]


class Given:
    """A part that gives what it was given."""

    def __init__(self, *answers: float | None) -> None:
        self.source, self._answers = Source("reward_model.parts.given", "a test"), list(answers)

    def require(self, there: Sequence[str], data: str) -> None:
        pass

    def __call__(self, rows: Sequence[Any], responses: Sequence[str]) -> list[float | None]:
        return self._answers


def test_the_sum_is_weighted_and_none_adds_nothing() -> None:
    parts = {"a": (2.0, Given(1.0, None, -1.0)), "b": (-0.5, Given(4.0, 2.0, None)), "c": (0.0, Given(9.0, 9.0, 9.0))}
    scorer = Scorer(torch.nn.Identity(), ("own", 0.5), parts)
    scores = scorer.total(torch.tensor([10.0, 20.0, 30.0]), scorer.of_texts(ROWS, ["", "", ""]))
    assert scores.total.tolist() == [5.0 + 2.0 - 2.0, 10.0 - 1.0, 15.0 - 2.0]
    means = means_of_parts("reward", scores.parts)
    third = pytest.approx(1 / 3)
    assert means == {
        "reward/own": 20.0,
        "reward/a": 0.0,
        "reward/a_none": third,
        "reward/b": 2.0,
        "reward/b_none": third,
        "reward/c": 9.0,
    }


def test_one_trained_model_of_weight_one_is_the_score_itself() -> None:
    given = torch.tensor([0.1, 0.2])
    scores = Scorer(torch.nn.Identity()).total(given, {})
    assert scores.total is given and scores.parts == {}


def test_without_a_trained_part_the_others_are_all() -> None:
    scorer = Scorer(None, text_parts={"a": (1.0, Given(1.0, 0.25, None))})
    assert scorer.total(torch.zeros(3), scorer.of_texts(ROWS, ["", "", ""])).total.tolist() == [1.0, 0.25, 0.0]
    assert scorer.models == [] and scorer.reads_texts


def test_a_part_that_applies_to_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="applies to no response at all") as caught:
        Scorer(None, text_parts={"a": (1.0, Given(None, None, None))}).of_texts(ROWS, ["", "", ""])
    assert caught.value.where == "reward_model.parts.given: a test" and caught.value.found == "None for all 3"


def test_it_is_found_again_by_what_its_folder_says(tmp_path: Path) -> None:
    correct = {"source": "function", "weight": 2.0, "function": "components.worlds.gsm8k.checker:correct",
               "batch_size": 2, "timeout_seconds": 60.0}  # fmt: skip
    content = {
        "section": "judge",
        "parts": {"correct": correct, "gold": {"source": "rubric", "weight": 1.0}},
        "normalisation": {},
    }
    write_json(tmp_path / SCORER_FILE, content)
    data = Data(
        columns={}, rubric="components.worlds.gsm8k.checker:score", rubric_options={}, rubric_files="components"
    )
    scorer = Scorer.load(tmp_path, torch.device("cpu"), data=data)
    rows = [Prompt("0", "one and one", extra={"answer": "2"}), Prompt("1", "two and two", extra={"answer": "4"})]
    assert scorer.total(torch.zeros(2), scorer.of_texts(rows, ["#### 2", "5"])).total.tolist() == [3.0, 0.0]
    assert trained_folder(tmp_path) is None


@pytest.mark.parametrize("content", [{}, {"section": "judge", "parts": {}, "normalisation": {}}, []])
def test_a_damaged_file_is_named(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / SCORER_FILE, content)
    with pytest.raises(ArtifactError, match=r"(?s)scorer.*scorer.json"):
        Scorer.load(tmp_path, torch.device("cpu"))
