"""A stored policy answers people from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import ArtifactError
from components.language_model.answering import Answerer
from components.language_model.loading import save_policy
from components.language_model.text import Codec

PROMPTS = ["a b", "c", "d a b c d", "b"] * 4
SETTINGS: dict[str, Any] = {"temperature": 1.0, "max_response_tokens": 5, "seed": 3}


@pytest.fixture
def answerer(word_policy: Any, word_codec: Codec, tmp_path: Path) -> Answerer:
    save_policy(word_policy, word_codec, tmp_path / "policy")
    return Answerer(tmp_path / "policy")


def test_the_same_question_and_seed_give_the_same_answers(answerer: Answerer) -> None:
    first = answerer.answer(PROMPTS, **SETTINGS)
    assert answerer.answer(PROMPTS, **SETTINGS) == first
    assert answerer.answer(PROMPTS, **SETTINGS | {"seed": 4}) != first
    assert answerer.answer(PROMPTS, **SETTINGS | {"temperature": 3.0}) != first
    assert len(first) == len(PROMPTS) and len(set(first)) > 3


def test_answers_are_words_and_no_longer_than_asked_for(answerer: Answerer) -> None:
    answers = answerer.answer(PROMPTS, **SETTINGS | {"max_response_tokens": 2})
    assert all(set(answer.split()) <= {"a", "b", "c", "d"} and len(answer.split()) <= 2 for answer in answers)
    assert max(len(answer.split()) for answer in answers) == 2


def test_no_question_has_no_answer(answerer: Answerer) -> None:
    assert answerer.answer([], **SETTINGS) == []


def test_a_folder_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        Answerer(tmp_path / "nowhere")
