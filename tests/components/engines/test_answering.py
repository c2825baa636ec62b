"""A stored policy answers people from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.engines.answering import Answerer
from components.errors import ArtifactError, DataError
from components.models.loading import save_policy
from components.models.text import Codec

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


def test_temperature_0_takes_the_likeliest_token(answerer: Answerer, word_policy: Any, word_codec: Codec) -> None:
    """As Hugging Face's greedy search does, and whatever the seed."""
    settings = SETTINGS | {"temperature": 0}
    answers = answerer.answer(PROMPTS, **settings)
    assert answerer.answer(PROMPTS, **settings | {"seed": 4}) == answers
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        tokens = torch.tensor(word_codec.encode_prompts([prompt]))
        greedy = word_policy.generate(tokens, max_new_tokens=5, do_sample=False, eos_token_id=word_codec.eos_id)
        assert word_codec.decode([greedy[0, tokens.shape[1] :].tolist()]) == [answer]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", value) for value in (-0.1, float("nan"), float("inf"), "1", None, True)]
    + [("max_response_tokens", value) for value in (0, -1, 2.5, True)]
    + [("seed", value) for value in (1.5, "1", None, float("nan"))],
)
def test_a_number_that_is_none_to_answer_with_is_refused_by_name(answerer: Answerer, name: str, value: Any) -> None:
    for prompts in (PROMPTS, []):
        with pytest.raises(DataError, match=rf"where: +{name}\n"):
            answerer.answer(prompts, **SETTINGS | {name: value})


def test_more_tokens_than_the_policy_has_positions_are_refused(answerer: Answerer) -> None:
    """The word policy has 64 positions."""
    assert len(answerer.answer(["a b c"], **SETTINGS | {"max_response_tokens": 61})) == 1
    with pytest.raises(DataError, match=r"at most 61.* 64 positions"):
        answerer.answer(["a", "a b c"], **SETTINGS | {"max_response_tokens": 62})
