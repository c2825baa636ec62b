"""What an update of PPO does not depend on: microbatches, order, padding, a part that has no say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from ppo_updates import KL_COEF, LIMIT, POLICY_RATE, assert_close, differ
from torch import Tensor

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import Credit
from components.alignment.policy_gradient.learner import parameter_groups
from components.alignment.policy_gradient.rollouts import Rollouts
from components.alignment.policy_gradient.update import Updater
from components.config import Params
from components.passes.sequences import Sequences
from components.training.schedule import make_optimizer


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_microbatch_size_changes_nothing(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any, size: int
) -> None:
    """Three epochs of two minibatches. A mean over each microbatch would weigh its tokens by their company."""
    shape = {"epochs": 3, "minibatches": 2, "clip_range_low": 0.02, "clip_range_high": 0.02}
    whole, numbers = updated(rollouts, credit, settings(**shape, microbatch_size=4))
    split, split_numbers = updated(rollouts, credit, settings(**shape, microbatch_size=size))
    assert_close(split, whole)
    assert split_numbers == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_the_order_of_the_rollouts_changes_nothing(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    permuted = Rollouts(rollouts.sequences.rows(order), *(column[order] for column in rollouts[1:-1]))
    permuted_credit = Credit(*(column[order] for column in credit))
    found, numbers = updated(permuted, permuted_credit, settings(microbatch_size=3, epochs=2))
    expected, expected_numbers = updated(rollouts, credit, settings(microbatch_size=3, epochs=2))
    assert_close(found, expected)
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-5)


def test_padding_changes_nothing_whatever_it_holds(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    def widen(tensor: Tensor, left: int, right: int, filling: float) -> Tensor:
        return torch.nn.functional.pad(tensor, (left, right), value=filling)

    prompt_tokens, prompt_mask, response_tokens, response_mask = rollouts.sequences
    padded = Rollouts(
        Sequences(
            widen(prompt_tokens, 3, 0, 9),
            widen(prompt_mask, 3, 0, False),
            widen(response_tokens, 0, 2, 9),
            widen(response_mask, 0, 2, False),
        ),
        rollouts.scores,
        rollouts.ended,
        *(widen(column, 0, 2, torch.nan) for column in rollouts[3:-1]),
    )
    padded_credit = Credit(credit.scores, *(widen(column, 0, 2, torch.nan) for column in credit[1:]))
    found, numbers = updated(padded, padded_credit, settings(epochs=2))
    expected, expected_numbers = updated(rollouts, credit, settings(epochs=2))
    assert_close(found, expected)
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-5)


def test_without_advantages_value_loss_and_entropy_no_weight_moves(
    updated: Any,
    model: ActorCritic,
    rollouts: Rollouts,
    credit: Credit,
    settings: Any,
    params: Params,
    weights_of: Any,
) -> None:
    """Under the product's own optimiser nothing moves, not by a bit."""

    def adam(trained: ActorCritic) -> torch.optim.Optimizer:
        rates = params.ppo.model_copy(update={"learning_rate": 0.01, "value_learning_rate": 0.01})
        return make_optimizer(parameter_groups(trained, rates, rates), rates.weight_decay)

    without = settings(value_loss_coef=0.0, entropy_coef=0.0, epochs=2)
    before = weights_of(model)
    idle = Credit(credit.scores, torch.zeros_like(credit.advantages), torch.zeros_like(credit.returns))
    found, _ = updated(rollouts, idle, without, adam)
    assert all(torch.equal(found[name], weight) for name, weight in before.items())
    found, _ = updated(rollouts, credit, without, adam)
    moved = {name.split(".")[0] for name, weight in before.items() if not torch.equal(found[name], weight)}
    assert moved == {"policy"}  # the value model has no part in a loss without its coefficient


def test_an_update_needs_no_value_model(
    accelerator: Accelerator, model: ActorCritic, rollouts: Rollouts, credit: Credit, settings: Any, weights_of: Any
) -> None:
    """RLOO and GRPO: the policy moves as it does beside a value model that has no say."""
    chosen = settings("rloo", responses_per_prompt=2, epochs=2)
    weights = []
    for value_model in (copy.deepcopy(model.value_model), None):
        pair = ActorCritic(copy.deepcopy(model.policy), value_model)
        optimizer = torch.optim.SGD(pair.policy.parameters(), lr=POLICY_RATE)
        updater = Updater(
            accelerator, pair, optimizer, chosen, critic=None, seed=1, method="rloo", max_response_tokens=LIMIT
        )
        found = updater.update(rollouts, credit, KL_COEF, iteration=0)
        assert "explained_variance" not in found  # nothing was explained
        weights.append(weights_of(pair.policy))
    assert_close(weights[1], weights[0])
    assert differ(weights[1], weights_of(model.policy))
