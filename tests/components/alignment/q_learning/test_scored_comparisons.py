"""Rewards against plain Hugging Face forwards and the statistics module."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from components.alignment.q_learning.dataset import ScoredComparisons, score_comparisons
from components.config import Params
from components.data.rows import Comparison
from components.errors import TrainingError
from components.measuring.measure import FrozenModels


@torch.no_grad()
def test_rewards_are_the_scores_in_standard_deviations_of_all_responses(
    data: ScoredComparisons, frozen: Any, rows: list[Comparison], pairs: Any
) -> None:
    classifier = frozen.reward_model.token_model.classifier
    scores = []
    for prompt, response in pairs:
        hidden = classifier.base_model(torch.tensor([prompt + response])).last_hidden_state[0, -1]
        scores.append(float(classifier.score(hidden)))  # a z-score of its own takes mean and std of the config away
    mean, std = statistics.mean(scores), statistics.stdev(scores)
    assert len(scores) == 2 * len(rows) == len(data.rewards)
    assert data.rewards.tolist() == pytest.approx([(score - mean) / std for score in scores], abs=1e-4)


def test_row_i_is_chosen_and_row_n_plus_i_rejected(
    data: ScoredComparisons, frozen: FrozenModels, rows: list[Comparison], pairs: Any
) -> None:
    assert data.ids == [row.id for row in rows]
    assert data.both(torch.tensor([3, 0])).tolist() == [3, 0, len(rows) + 3, len(rows)]
    codec = frozen.codec
    texts = codec.decode([response for _, response in pairs])
    assert texts == [row.chosen for row in rows] + [row.rejected for row in rows]
    prompts = codec.encode_prompts([row.prompt for row in rows])
    assert [prompt for prompt, _ in pairs] == prompts + prompts


def test_the_batch_size_changes_no_reward(
    accelerator: Accelerator, frozen: FrozenModels, tiny_params: Any, rows: list[Comparison], data: ScoredComparisons
) -> None:
    for size in (1, 5, 100):
        found = score_comparisons(accelerator, frozen, tiny_params(measurement={"batch_size": size}).shared, rows)
        torch.testing.assert_close(found.rewards, data.rewards, rtol=0, atol=1e-4)


def test_scores_that_are_all_alike_are_refused(
    accelerator: Accelerator, frozen: Any, params: Params, rows: list[Comparison]
) -> None:
    with torch.no_grad():
        frozen.reward_model.token_model.classifier.score.weight.zero_()
    with pytest.raises(TrainingError, match="scores of the .* comparisons") as caught:
        score_comparisons(accelerator, frozen, params.shared, rows)
    assert "standard deviation 0.0" in caught.value.found


def test_scores_that_are_not_finite_are_refused(
    accelerator: Accelerator, frozen: Any, params: Params, rows: list[Comparison]
) -> None:
    with torch.no_grad():
        frozen.reward_model.token_model.classifier.score.weight[0, 0] = torch.inf
    with pytest.raises(TrainingError, match="scores of the comparisons, row.s. 0, 1"):
        score_comparisons(accelerator, frozen, params.shared, rows)
