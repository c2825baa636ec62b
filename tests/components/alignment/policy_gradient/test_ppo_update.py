"""Phase 2 against the formulas written out once more, with plain Hugging Face forwards of single sequences."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ppo_updates import KL_COEF, LIMIT, POLICY_RATE, VALUE_RATE, Weights, assert_close, differ

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import Credit
from components.alignment.policy_gradient.rollouts import Rollouts
from components.alignment.policy_gradient.update import Statistics
from components.config import Ppo
from components.errors import TrainingError
from components.seeding import generator

Pairs = list[tuple[list[int], list[int]]]


def minibatches(settings: Ppo) -> Iterator[list[int]]:
    """The rows of each step: the batch in an order of each epoch's own, cut into equal parts."""
    for epoch in range(settings.epochs):
        order = torch.randperm(8, generator=generator(1, "ppo", "minibatches", 0, epoch)).tolist()
        size = 8 // settings.minibatches
        yield from (order[start : start + size] for start in range(0, 8, size))


def by_the_formulas(
    model: ActorCritic, rollouts: Rollouts, credit: Credit, pairs: Pairs, settings: Ppo
) -> tuple[Weights, list[Statistics]]:
    """The weights after all steps, and each step's numbers: a token at a time, one sequence a forward, nothing of
    components.core."""
    steps = []
    for minibatch in minibatches(settings):
        rows = [row for row in minibatch if rollouts.ended[row] or not settings.mask_truncated]
        count = sum(len(pairs[row][1]) for row in rows)
        sums = dict.fromkeys(("policy_loss", "value_loss", "entropy", "kl_loss"), torch.zeros(()))
        clipped = value_clipped = moved = 0.0
        for row in rows:
            prompt, response = pairs[row]
            tokens, start, length = torch.tensor([prompt + response]), len(prompt) - 1, len(response)
            logits = model.policy(tokens).logits[0, start:-1]
            distribution = torch.distributions.Categorical(logits=logits / settings.temperature)
            entropy = distribution.entropy()
            new = distribution.log_prob(torch.tensor(response))
            classifier = model.value_model.classifier
            hidden = classifier.base_model(tokens).last_hidden_state[0, start:-1]
            values = (classifier.score(hidden)[:, 0] - classifier.config.score_mean) / classifier.config.score_std
            share = {
                "token_mean": 1 / count,
                "sequence_mean": 1 / (length * len(rows)),
                "sum_over_limit": 1 / (LIMIT * len(minibatch)),
            }[settings.loss_aggregation]
            mean_log_ratio = (
                sum(float(new[t].detach()) - float(rollouts.old_logprobs[row, t]) for t in range(length)) / length
            )
            for t in range(length):
                old, old_value, target, a = (
                    float(column[row, t])
                    for column in (rollouts.old_logprobs, rollouts.values, credit.returns, credit.advantages)
                )
                ratio = (new[t] - old).exp()
                if settings.policy_loss == "gspo":  # this value, and as gradient that of the token's logprob times it
                    ratio = math.exp(mean_log_ratio) * (1 + new[t] - new[t].detach())
                lowest = -math.inf if settings.clip_range_low is None else 1 - settings.clip_range_low
                held = ratio.clamp(lowest, 1 + settings.clip_range_high)
                surrogate = torch.minimum(a * ratio, a * held)
                clipped += float(a * held < a * ratio if settings.policy_loss != "cispo" else held != ratio)
                if settings.policy_loss == "cispo":
                    surrogate = a * float(held) * new[t]
                if settings.dual_clip is not None and a < 0:
                    surrogate = torch.maximum(surrogate, torch.tensor(settings.dual_clip * a))
                error = (values[t] - target) ** 2
                if settings.value_clip_range is not None:
                    near = values[t].clamp(old_value - settings.value_clip_range, old_value + settings.value_clip_range)
                    value_clipped += float((near - target) ** 2 > error)
                    error = torch.maximum(error, (near - target) ** 2)
                gap = new[t] - float(rollouts.ref_logprobs[row, t])
                kl = {"k1": gap, "k2": gap**2 / 2, "k3": (-gap).exp() - 1 + gap}[settings.kl_estimator]
                terms = {"policy_loss": -surrogate, "value_loss": error / 2, "entropy": entropy[t], "kl_loss": kl}
                sums = {name: total + share * terms[name] for name, total in sums.items()}
                moved += 0.5 * (float(new[t].detach()) - old) ** 2
        objective = sums["policy_loss"] + settings.value_loss_coef * sums["value_loss"]
        objective = objective - settings.entropy_coef * sums["entropy"]
        if settings.kl_placement == "loss":
            objective = objective + KL_COEF * sums["kl_loss"]
        else:
            del sums["kl_loss"]
        model.zero_grad()
        objective.backward()
        step = {name: float(total) for name, total in sums.items()}
        step |= {"clip_fraction": clipped / count, "value_clip_fraction": value_clipped / count}
        step |= {"approx_kl": moved / count}
        with torch.no_grad():
            parts = (("policy", model.policy, POLICY_RATE), ("value", model.value_model, VALUE_RATE))
            for name, part, rate in parts:
                norm = sum(float(weight.grad.square().sum()) for weight in part.parameters()) ** 0.5
                step[f"{name}_gradient_norm"] = norm
                for weight in part.parameters():
                    weight -= rate * min(1.0, settings.gradient_clip / max(norm, 1e-30)) * weight.grad
        steps.append(step)
    return {name: weight.detach() for name, weight in model.named_parameters()}, steps


GSPO = {
    "epochs": 3,
    "policy_loss": "gspo",
    "loss_aggregation": "sequence_mean",
    "clip_range_low": 0.01,
    "clip_range_high": 0.02,
    "microbatch_size": 3,
}
TRUNCATED = {"epochs": 2, "mask_truncated": True, "missing_eos": "none", "microbatch_size": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 3, "clip_range_low": 0.01, "clip_range_high": 0.02, "value_clip_range": 0.01},
        {"epochs": 3, "value_clip_range": None, "dual_clip": 1.01},
        {"epochs": 2, "minibatches": 4, "microbatch_size": 2},
        {"epochs": 2, "minibatches": 2, "microbatch_size": 3, "loss_aggregation": "sequence_mean"},
        {"epochs": 2, "kl_placement": "loss", "kl_estimator": "k2"},
        {"epochs": 2, "kl_placement": "loss", "kl_estimator": "k3", "loss_aggregation": "sequence_mean"},
        {"epochs": 3, "minibatches": 2, "microbatch_size": 3, "loss_aggregation": "sum_over_limit"},
        GSPO,
        {"epochs": 3, "policy_loss": "cispo", "clip_range_low": 0.01, "clip_range_high": 0.02},
        {"epochs": 3, "policy_loss": "cispo", "clip_range_low": None, "clip_range_high": 0.02, "microbatch_size": 3},
        TRUNCATED,
        TRUNCATED | {"loss_aggregation": "sequence_mean", "kl_placement": "loss", "kl_estimator": "k2"},
        TRUNCATED | {"loss_aggregation": "sum_over_limit"},
        {"epochs": 2, "gradient_clip": 0.05},  # policy and value gradients, each to this norm
    ],
    ids=str,
)
def test_the_weights_move_as_the_formulas_say(
    updated: Any,
    model: ActorCritic,
    rollouts: Rollouts,
    credit: Credit,
    pairs: Pairs,
    settings: Any,
    weights_of: Any,
    changes: Any,
) -> None:
    before = weights_of(model)
    found, statistics = updated(rollouts, credit, settings(**changes))
    expected, steps = by_the_formulas(copy.deepcopy(model), rollouts, credit, pairs, settings(**changes))
    assert differ(expected, before)
    assert_close(found, expected)
    assert True in rollouts.ended and False in rollouts.ended  # or the truncated would not be tried
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    assert {name: statistics[name] for name in means} == pytest.approx(means, rel=1e-3, abs=1e-5)
    assert statistics["steps"] == len(steps)
    if changes.get("epochs") == 3:
        assert statistics["ratio_max"] > 1.01
        assert statistics["clip_fraction"] > 0 or settings(**changes).dual_clip  # the limits are reached


def test_the_first_step_of_an_update_has_ratio_one(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    """True only if old and new logprobs come from the same weights at the same temperature, without dropout."""
    _, statistics = updated(rollouts, credit, settings(microbatch_size=3))
    assert statistics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert statistics["clip_fraction"] == 0.0 and statistics["value_clip_fraction"] == 0.0
    assert statistics["approx_kl"] == pytest.approx(0.0, abs=1e-10)


def test_an_update_stops_once_it_has_moved_the_policy_far_enough(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    """The first step starts where the rollouts came from, at a KL of 0; the second finds the policy moved."""
    shape = {"epochs": 3, "minibatches": 2, "microbatch_size": 4}
    assert updated(rollouts, credit, settings(**shape))[1]["steps"] == 6
    stopped, statistics = updated(rollouts, credit, settings(**shape, max_update_kl_nats_per_token=1e-9))
    assert statistics["steps"] == 2
    one_epoch, _ = updated(rollouts, credit, settings(**shape | {"epochs": 1}))
    assert all(torch.equal(stopped[name], weight) for name, weight in one_epoch.items())
    _, statistics = updated(rollouts, credit, settings(**shape, max_update_kl_nats_per_token=1e9))
    assert statistics["steps"] == 6


def test_explained_variance_is_one_minus_what_the_values_left(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    mask = rollouts.sequences.response_mask
    gaps = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2))
    returns = torch.arange(8.0)[:, None].expand(mask.shape)
    changed = rollouts._replace(values=returns - gaps)
    _, statistics = updated(changed, credit._replace(returns=returns), settings())
    expected = 1 - float(gaps[mask].var()) / float(returns[mask].var())
    assert statistics["explained_variance"] == pytest.approx(expected, abs=1e-4)


def test_an_objective_that_is_not_finite_stops_and_names_the_rollouts(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    """The square of the return of rollout 5, 1e50, is beyond float32."""
    returns = torch.zeros_like(credit.returns)
    returns[5] = 1e25
    for size in (8, 2, 1):
        with pytest.raises(TrainingError) as caught:
            updated(rollouts, credit._replace(returns=returns), settings(microbatch_size=size, minibatches=1))
        assert caught.value.where == "ppo, iteration 1, rollouts 5"


def test_a_minibatch_of_truncated_responses_alone_takes_no_step(
    updated: Any, rollouts: Rollouts, credit: Credit, settings: Any
) -> None:
    """Minibatches of one row each: as many steps an epoch as there are responses that ended."""
    chosen = settings(epochs=2, minibatches=8, microbatch_size=1, mask_truncated=True, missing_eos="none")
    _, statistics = updated(rollouts, credit, chosen)
    assert statistics["steps"] == 2 * int(rollouts.ended.sum()) < 16
