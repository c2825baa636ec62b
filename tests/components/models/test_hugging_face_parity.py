"""What Proximal computes on padded batches is what plain Hugging Face computes on each sequence alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.models.loading import load_policy, load_scalar_model, new_scalar_model
from components.passes.forward import (
    response_logprobs,
    response_logprobs_and_entropy,
    response_values,
    sequence_scores,
)
from components.passes.sequences import Sequences

Pairs = list[tuple[list[int], list[int]]]
TEMPERATURE = 0.7
MEAN, STD = 0.3, 2.5  # the stored scalar model's normalisation


@pytest.fixture
def plain_policy(stored_policy: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(stored_policy).eval()


@pytest.fixture
def plain_classifier(stored_scalar_model: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(stored_scalar_model).eval()


@torch.no_grad()
def test_logits_logprobs_and_entropy_equal_hugging_faces(
    stored_policy: Path, plain_policy: Any, sequences: Sequences, pairs: Pairs, response_logits: Any
) -> None:
    policy = load_policy(stored_policy)
    logits = response_logits(policy, sequences)
    logprobs, entropies = response_logprobs_and_entropy(policy, sequences, TEMPERATURE)
    assert torch.equal(response_logprobs(policy, sequences, TEMPERATURE), logprobs)
    for row, (prompt, response) in enumerate(pairs):
        alone = plain_policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[row, : len(response)], alone, rtol=0, atol=2e-5)
        distribution = torch.distributions.Categorical(logits=alone / TEMPERATURE)
        expected = distribution.log_prob(torch.tensor(response))
        torch.testing.assert_close(logprobs[row, : len(response)], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(entropies[row, : len(response)], distribution.entropy(), rtol=0, atol=2e-5)


@torch.no_grad()
def test_scores_equal_hugging_faces(
    stored_scalar_model: Path, plain_classifier: Any, sequences: Sequences, pairs: Pairs
) -> None:
    scores = sequence_scores(load_scalar_model(stored_scalar_model), sequences)
    for row, (prompt, response) in enumerate(pairs):
        alone = plain_classifier(torch.tensor([prompt + response])).logits[0, 0]
        assert float(scores[row]) == pytest.approx((float(alone) - MEAN) / STD, abs=1e-5)


@torch.no_grad()
def test_a_value_is_the_score_of_all_that_came_before_the_token(
    stored_scalar_model: Path, plain_classifier: Any, sequences: Sequences, pairs: Pairs
) -> None:
    values = response_values(load_scalar_model(stored_scalar_model), sequences)
    for row, (prompt, response) in enumerate(pairs):
        for step in range(len(response)):
            before = plain_classifier(torch.tensor([prompt + response[:step]])).logits[0, 0]
            assert float(values[row, step]) == pytest.approx((float(before) - MEAN) / STD, abs=1e-5)


def test_a_new_scalar_model_has_the_policys_trunk_and_a_head_of_the_seed(
    stored_policy: Path, plain_policy: Any
) -> None:
    model = new_scalar_model(stored_policy, seed=4)
    trunk = model.classifier.base_model.state_dict()
    expected = plain_policy.base_model.state_dict()
    assert trunk.keys() == expected.keys()
    assert all(torch.equal(trunk[name], expected[name]) for name in trunk)
    heads = [new_scalar_model(stored_policy, seed).classifier.score.weight for seed in (4, 5)]
    assert torch.equal(heads[0], model.classifier.score.weight)
    assert not torch.equal(heads[0], heads[1])
    assert (model.classifier.config.score_mean, model.classifier.config.score_std) == (0.0, 1.0)
