"""From scores to advantages, against the formulas written out in plain Python on the numbers of real rollouts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch

from components.alignment.grpo import learner as grpo
from components.alignment.policy_gradient.credit import Estimate, assign_credit
from components.alignment.policy_gradient.rollouts import Rollouts
from components.alignment.ppo import learner as ppo
from components.alignment.rloo import learner as rloo
from components.config import Grpo, Params, Ppo, Rloo
from components.core.stats import RunningMoments
from components.errors import TrainingError

KL_COEF = 0.3
EARLIER = [0.5, -1.0, 2.0, 0.25]  # scores of the iterations before
Rows = list[list[float]]


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., Ppo]:
    """As shipped but for what a test changes, with limits that are reached."""
    plain = {"missing_eos_value": -2.0, "score_clip": 1.5}
    critic = {"ppo": {"gamma": 0.99, "gae_lambda": 0.9}}

    def chosen(method: str = "ppo", **changes: Any) -> Ppo:
        return tiny_params(method=method, **{method: plain | critic.get(method, {}) | changes}).alignment

    return chosen


def estimate_of(settings: Ppo | Grpo | Rloo) -> Estimate:
    """The method's own, by its section."""
    if isinstance(settings, Ppo):
        return ppo.estimate(settings)
    return grpo.estimate(settings) if isinstance(settings, Grpo) else rloo.estimate(settings)


def plain_scores(rollouts: Rollouts, settings: Ppo) -> list[float]:
    """Missing end, length penalty, scaling, clipping: in this order."""
    lengths = rollouts.sequences.response_mask.sum(dim=1).tolist()
    scores = []
    for score, ended, length in zip(rollouts.scores.tolist(), rollouts.ended.tolist(), lengths, strict=True):
        if not ended and settings.missing_eos == "replace":
            score = settings.missing_eos_value
        if not ended and settings.missing_eos == "subtract":
            score -= settings.missing_eos_value
        if (limits := settings.length_penalty) is not None:
            over = length - (limits.limit_tokens - limits.buffer_tokens)
            score -= limits.factor * min(max(over, 0), limits.buffer_tokens) / limits.buffer_tokens
        scores.append(score)
    seen = EARLIER + scores
    shift = statistics.mean(seen) if settings.score_scaling == "running_mean_std" else 0.0
    if settings.score_scaling != "none":
        scores = [(score - shift) / statistics.stdev(seen) for score in scores]
    limit = settings.score_clip if settings.score_clip is not None else math.inf
    return [max(-limit, min(limit, score)) for score in scores]


def plain_rewards(rollouts: Rollouts, scores: list[float], settings: Ppo) -> Rows:
    """The KL penalty of each token, and the score on the last one."""
    estimators: dict[str, Callable[[float], float]] = {
        "k1": lambda d: d,
        "k2": lambda d: d * d / 2,
        "k3": lambda d: math.exp(-d) - 1 + d,
    }
    rewards = []
    for row, length in enumerate(rollouts.sequences.response_mask.sum(dim=1).tolist()):
        gaps = (rollouts.old_logprobs[row] - rollouts.ref_logprobs[row])[:length].tolist()
        in_reward = settings.kl_placement == "reward"
        of_row = [-KL_COEF * estimators[settings.kl_estimator](gap) * in_reward for gap in gaps]
        of_row[-1] += scores[row]
        rewards.append(of_row)
    return rewards


def plain_gae(rewards: Rows, rollouts: Rollouts, settings: Ppo) -> tuple[Rows, Rows]:
    """Advantages by gae_lambda, and the values' returns by their own lambda where there is one."""
    advantages, returns = one_lambda(rewards, rollouts, settings, settings.gae_lambda)
    if settings.value_gae_lambda is not None:
        _, returns = one_lambda(rewards, rollouts, settings, settings.value_gae_lambda)
    return advantages, returns


def one_lambda(rewards: Rows, rollouts: Rollouts, settings: Ppo, gae_lambda: float) -> tuple[Rows, Rows]:
    advantages: Rows = []
    returns: Rows = []
    for row, of_row in enumerate(rewards):
        values = [*rollouts.values[row, : len(of_row)].tolist(), 0.0]
        advantage, backwards = 0.0, []
        for t in reversed(range(len(of_row))):
            delta = of_row[t] + settings.gamma * values[t + 1] - values[t]
            advantage = delta + settings.gamma * gae_lambda * advantage
            backwards.append(advantage)
        advantages.append(backwards[::-1])
        returns.append([a + v for a, v in zip(advantages[-1], values[:-1], strict=True)])
    return advantages, returns


def plain_groups(rewards: Rows, settings: Ppo) -> Rows:
    """RLOO, GRPO and Dr. GRPO over groups of `responses_per_prompt`, given to every token of the response."""
    totals, size = [sum(row) for row in rewards], settings.responses_per_prompt
    advantages = []
    for row, total in enumerate(totals):
        group = totals[row - row % size : row - row % size + size]
        if isinstance(settings, Rloo):
            advantage = total - (sum(group) - total) / (size - 1)
        elif isinstance(settings, Grpo) and settings.advantage_scale == "none":
            advantage = total - statistics.mean(group)
        else:
            advantage = (total - statistics.mean(group)) / (statistics.stdev(group) + 1e-6)
        advantages.append([advantage] * len(rewards[row]))
    return advantages


def at_tokens(column: torch.Tensor, rollouts: Rollouts) -> list[float]:
    return column[rollouts.sequences.response_mask].tolist()


PENALTY = {"limit_tokens": 6, "buffer_tokens": 4, "factor": 0.7}
GROUPS = {"responses_per_prompt": 4}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"missing_eos": "none"},
        {"missing_eos": "subtract", "missing_eos_value": 0.75},
        {"length_penalty": PENALTY},
        {"score_scaling": "running_std"},
        {"score_scaling": "running_mean_std", "score_clip": None},
        {"kl_placement": "loss", "kl_estimator": "k2"},
        {"gamma": 1.0, "gae_lambda": 1.0},
        {"value_gae_lambda": 1.0},
        {"value_gae_lambda": 0.5, "gae_lambda": 0.0},
        {"mask_truncated": True, "missing_eos": "none"},
        {"method": "rloo", **GROUPS},
        {"method": "grpo", **GROUPS, "advantage_scale": "none"},
        {"method": "grpo", **GROUPS, "mask_truncated": True, "missing_eos": "none"},
        {"method": "grpo", **GROUPS, "length_penalty": PENALTY},
    ],
    ids=str,
)
@pytest.mark.parametrize("whitened", [False, True])
def test_credit_is_as_the_formulas_say(rollouts: Rollouts, settings: Any, changes: Any, whitened: bool) -> None:
    chosen: Ppo = settings(**changes, whiten_advantages=whitened)
    ended = rollouts.ended.tolist()
    assert True in ended and False in ended  # or the missing end would not be tried
    credit, _ = assign_credit(
        rollouts, KL_COEF, RunningMoments().update(torch.tensor(EARLIER)), chosen, estimate_of(chosen)
    )

    scores = plain_scores(rollouts, chosen)
    assert credit.scores.tolist() == pytest.approx(scores, abs=1e-5)
    rewards = plain_rewards(rollouts, scores, chosen)
    if isinstance(chosen, Ppo):
        advantages, returns = plain_gae(rewards, rollouts, chosen)
        flat_returns = [target for row in returns for target in row]
        assert at_tokens(credit.returns, rollouts) == pytest.approx(flat_returns, abs=1e-5)
    else:
        advantages = plain_groups(rewards, chosen)
    if whitened:
        # what is left out of the loss has no part in it
        counted = [
            a for row, end in zip(advantages, ended, strict=True) if end or not chosen.mask_truncated for a in row
        ]
        mean, std = statistics.mean(counted), statistics.stdev(counted)
        advantages = [
            [(advantage - mean) / std if end or not chosen.mask_truncated else 0.0 for advantage in row]
            for row, end in zip(advantages, ended, strict=True)
        ]
    flat = [advantage for row in advantages for advantage in row]
    assert at_tokens(credit.advantages, rollouts) == pytest.approx(flat, abs=1e-4)
    assert bool((credit.advantages[~rollouts.sequences.response_mask] == 0).all())


def test_the_moments_go_on_over_the_iterations(rollouts: Rollouts, settings: Any) -> None:
    moments = RunningMoments()
    for iteration in range(3):
        changed = rollouts._replace(scores=rollouts.scores + iteration)
        chosen = settings(missing_eos="none")
        _, moments = assign_credit(changed, KL_COEF, moments, chosen, estimate_of(chosen))
    seen = [score + iteration for iteration in range(3) for score in rollouts.scores.tolist()]
    assert moments.count == 24
    assert (moments.mean, moments.std) == pytest.approx((statistics.mean(seen), statistics.stdev(seen)), abs=1e-5)


def test_where_all_responses_are_truncated_and_left_out_there_is_nothing_to_learn(
    rollouts: Rollouts, settings: Any
) -> None:
    chosen: Ppo = settings(mask_truncated=True, missing_eos="none")
    truncated = rollouts._replace(ended=torch.zeros_like(rollouts.ended))
    with pytest.raises(TrainingError, match="mask_truncated leaves them out") as caught:
        assign_credit(truncated, KL_COEF, RunningMoments(), chosen, estimate_of(chosen))
    assert caught.value.found == "0 of 8"
