"""Runs updates of PPO in tests, and compares the weights after them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import Credit, assign_credit
from components.alignment.policy_gradient.rollouts import Rollouts
from components.alignment.policy_gradient.update import Statistics, Updater
from components.alignment.ppo import learner as ppo
from components.config import Params, Ppo
from components.core.stats import RunningMoments

Weights = dict[str, Tensor]
KL_COEF = 0.3
LIMIT = 6  # of a response, in tokens
POLICY_RATE, VALUE_RATE = 0.1, 0.001  # of gradient descent


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., Ppo]:
    """One epoch of one minibatch, every term switched on."""
    plain = {
        "temperature": 0.8,
        "epochs": 1,
        "minibatches": 1,
        "microbatch_size": 8,
        "clip_range_low": 0.2,
        "clip_range_high": 0.3,
        "entropy_coef": 0.05,
        "gradient_clip": 1e6,
    }
    critic = {"ppo": {"value_loss_coef": 0.5}}

    def chosen(method: str = "ppo", **changes: Any) -> Ppo:
        return tiny_params(method=method, **{method: plain | critic.get(method, {}) | changes}).alignment

    return chosen


@pytest.fixture
def credit(rollouts: Rollouts, params: Params) -> Credit:
    return assign_credit(rollouts, KL_COEF, RunningMoments(), params.ppo, ppo.estimate(params.ppo))[0]


def gradient_descent(model: ActorCritic) -> torch.optim.Optimizer:
    policy, value_model = list(model.policy.parameters()), list(model.value_model.parameters())
    return torch.optim.SGD([{"params": policy, "lr": POLICY_RATE}, {"params": value_model, "lr": VALUE_RATE}])


@pytest.fixture
def updated(
    accelerator: Accelerator, model: ActorCritic, weights_of: Callable[[Any], Weights]
) -> Callable[..., tuple[Weights, Statistics]]:
    """The weights after an update of a copy of the model. By plain gradient descent, unless told otherwise: Adam
    turns the rounding of a gradient near zero into a whole step."""

    def run(rollouts: Rollouts, credit: Credit, settings: Ppo, optimizer: Any = None) -> tuple[Weights, Statistics]:
        trained = copy.deepcopy(model)
        optimizer = (optimizer or gradient_descent)(trained)
        updater = Updater(
            accelerator, trained, optimizer, settings, critic=settings, seed=1, method="ppo", max_response_tokens=LIMIT
        )
        statistics = updater.update(rollouts, credit, KL_COEF, iteration=0)
        return weights_of(trained), statistics

    return run


def assert_close(found: Weights, expected: Weights) -> None:
    for name, weight in expected.items():
        torch.testing.assert_close(
            found[name], weight, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def differ(found: Weights, expected: Weights) -> bool:
    return any(float((found[name] - weight).abs().max()) > 1e-4 for name, weight in expected.items())
