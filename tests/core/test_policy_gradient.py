"""The pieces together: what PPO follows is the gradient of the objective that is written on its box.

A policy over responses of at most two tokens of {0, 1, EOS} is small enough to write the objective out in
plain Python, response by response. Its derivative by central differences is what the losses have to give.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from components.core.advantages import gae, rloo, spread
from components.core.aggregation import aggregate
from components.core.kl import kl_estimate
from components.core.logprobs import token_logprobs
from components.core.losses import policy_loss
from components.core.masks import response_mask
from components.core.rewards import per_token_rewards

EOS, PAD = 2, 0
RESPONSES = [(2,), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
SCORES = {response: score for response, score in zip(RESPONSES, [0.3, -1.0, 2.0, 0.5, 1.5, -0.7, 0.9], strict=True)}
BETA = 0.4

# One row of logits a state: nothing written yet, then after token 0, then after token 1.
POLICY = [0.3, -0.2, 0.5, 1.0, 0.1, -0.4, -0.6, 0.2, 0.9]
REFERENCE = [0.0, 0.4, 0.1, -0.3, 0.2, 0.0, 0.5, -0.1, 0.2]

Logits = list[float]


def states(response: tuple[int, ...]) -> list[int]:
    return [0] if len(response) == 1 else [0, 1 + response[0]]


def logprob(logits: Logits, state: int, token: int) -> float:
    row = logits[3 * state : 3 * state + 3]
    return row[token] - math.log(math.fsum(map(math.exp, row)))


def log_prob_of(logits: Logits, response: tuple[int, ...]) -> float:
    return math.fsum(logprob(logits, state, token) for state, token in zip(states(response), response, strict=True))


def objective(logits: Logits, beta: float) -> float:
    """E[score] - beta KL(policy, reference), over all responses."""
    total = 0.0
    for response, score in SCORES.items():
        own = log_prob_of(logits, response)
        total += math.exp(own) * (score - beta * (own - log_prob_of(REFERENCE, response)))
    return total


def derivative(function: Callable[[Logits], float], at: Logits) -> Tensor:
    step = 1e-5
    slopes = []
    for i in range(len(at)):
        up, down = ([*at[:i], at[i] + sign * step, *at[i + 1 :]] for sign in (1, -1))
        slopes.append((function(up) - function(down)) / (2 * step))
    return torch.tensor(slopes, dtype=torch.float64)


def value(state: int) -> float:
    """The expected sum of rewards from a state on: score minus beta KL of what is still to come."""
    total = 0.0
    for token in range(3):
        own, reference = logprob(POLICY, state, token), logprob(REFERENCE, state, token)
        written = (token,) if state == 0 else (state - 1, token)
        to_come = SCORES[written] if written in SCORES else value(1 + token)
        total += math.exp(own) * (to_come - BETA * (own - reference))
    return total


@pytest.fixture
def theta() -> Tensor:
    return torch.tensor(POLICY, dtype=torch.float64, requires_grad=True)


TOKENS = torch.tensor([(*response, PAD)[:2] for response in RESPONSES])
STATES = torch.tensor([(*states(response), 0)[:2] for response in RESPONSES])
SCORE = torch.tensor([SCORES[response] for response in RESPONSES], dtype=torch.float64)
MASK = response_mask(TOKENS, EOS)


def logprobs_of_all(theta: Tensor) -> Tensor:
    return token_logprobs(theta.reshape(3, 3)[STATES], TOKENS)


def expectation(per_sequence: Tensor, logprobs: Tensor) -> Tensor:
    probabilities = torch.where(MASK, logprobs.detach(), 0).sum(dim=1).exp()
    assert_close(probabilities.sum().item(), 1.0)
    return (probabilities * per_sequence).sum()


def expected_surrogate_gradient(theta: Tensor, values: Tensor, gae_lambda: float) -> Tensor:
    """Reward, advantage and loss as PPO computes them, of every response, weighted by its probability."""
    new = logprobs_of_all(theta)
    reference = logprobs_of_all(torch.tensor(REFERENCE, dtype=torch.float64))
    kl = kl_estimate(new.detach(), reference, "k1")
    rewards = per_token_rewards(SCORE, kl, BETA, MASK)
    advantages, _ = gae(rewards, values, MASK, 1.0, gae_lambda)
    loss = policy_loss(new, new.detach(), advantages, MASK, clip_low=0.2, clip_high=0.2, dual_clip=3.0).loss
    return torch.autograd.grad(expectation(loss.sum(dim=1), new), theta)[0]


def test_ppo_follows_the_objective_whatever_the_baseline(theta):
    """With lambda 1 any values give the gradient of E[score] - beta KL: they are but a baseline."""
    expected = -derivative(lambda logits: objective(logits, BETA), POLICY)
    for seed in range(3):
        values = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        of_states = values[0][STATES]  # a value belongs to a state, not to what was written from there
        assert_close(expected_surrogate_gradient(theta, of_states, 1.0), expected, rtol=0, atol=1e-9)
    assert expected.abs().max() > 0.05


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95])
def test_ppo_follows_the_objective_for_any_lambda_when_the_values_are_exact(theta, gae_lambda):
    values = torch.tensor([value(state) for state in range(3)], dtype=torch.float64)[STATES]
    expected = -derivative(lambda logits: objective(logits, BETA), POLICY)
    assert_close(expected_surrogate_gradient(theta, values, gae_lambda), expected, rtol=0, atol=1e-9)


def test_kl_in_the_loss_follows_the_objective_with_k2(theta):
    """Scores as advantages and beta k2 in the loss: the same gradient, by the other way."""
    new = logprobs_of_all(theta)
    reference = logprobs_of_all(torch.tensor(REFERENCE, dtype=torch.float64))
    surrogate = policy_loss(
        new, new.detach(), spread(SCORE, MASK), MASK, clip_low=0.2, clip_high=0.2, dual_clip=None
    ).loss
    # k2 per sequence: a token's own k2 would leave out what the token does to the KL of the tokens after it
    log_ratio = torch.where(MASK, new - reference, 0).sum(dim=1, keepdim=True)
    k2 = kl_estimate(log_ratio, torch.zeros_like(log_ratio), "k2").squeeze(1)
    loss = expectation(surrogate.sum(dim=1) + BETA * k2, new)
    expected = -derivative(lambda logits: objective(logits, BETA), POLICY)
    assert_close(torch.autograd.grad(loss, theta)[0], expected, rtol=0, atol=1e-9)


def test_k2_of_a_token_follows_the_kl_of_that_token_given_what_was_written(theta):
    """What a token does to the KL of the tokens after it is left out; in the reward (k1) it is not."""

    def kl_of_states_as_often_as_visited_now(logits: Logits) -> float:
        total = 0.0
        for state in range(3):
            visits = 1.0 if state == 0 else math.exp(logprob(POLICY, 0, state - 1))
            for token in range(3):
                own, reference = logprob(logits, state, token), logprob(REFERENCE, state, token)
                total += visits * math.exp(own) * (own - reference)
        return total

    new = logprobs_of_all(theta)
    reference = logprobs_of_all(torch.tensor(REFERENCE, dtype=torch.float64))
    k2 = torch.where(MASK, kl_estimate(new, reference, "k2"), 0).sum(dim=1)
    (gradient,) = torch.autograd.grad(expectation(k2, new), theta)
    assert_close(gradient, derivative(kl_of_states_as_often_as_visited_now, POLICY), rtol=0, atol=1e-9)


def test_rloo_is_unbiased(theta):
    """The mean over the two responses of a pair, over all pairs, weighted by their probability."""
    new = logprobs_of_all(theta)
    probabilities = torch.where(MASK, new.detach(), 0).sum(dim=1).exp()
    total = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.product(range(7), repeat=2):
        pair = torch.tensor([i, j])
        advantages = spread(rloo(SCORE[pair], 2), MASK[pair])
        loss = policy_loss(
            new[pair], new[pair].detach(), advantages, MASK[pair], clip_low=0.2, clip_high=0.2, dual_clip=None
        ).loss
        # "token_mean" over one: the sum over the tokens of the pair, halved for its two responses
        total = total + probabilities[i] * probabilities[j] * aggregate(loss, MASK[pair], "token_mean", 2)
    expected = -derivative(lambda logits: objective(logits, 0.0), POLICY)
    assert_close(torch.autograd.grad(total, theta)[0], expected, rtol=0, atol=1e-9)


def test_the_expected_kl_of_the_rollout_is_the_kl_of_the_policies(theta):
    new = logprobs_of_all(theta).detach()
    reference = logprobs_of_all(torch.tensor(REFERENCE, dtype=torch.float64))
    exact = objective(POLICY, 0.0) - objective(POLICY, 1.0)
    for estimator in ("k1", "k3"):
        kl = torch.where(MASK, kl_estimate(new, reference, estimator), 0).sum(dim=1)
        assert_close(expectation(kl, new).item(), exact, rtol=0, atol=1e-12)
