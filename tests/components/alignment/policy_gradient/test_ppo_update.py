"""Phase 2 against the formulas written out once more, with plain Hugging Face forwards of single sequences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import Credit, assign_credit
from components.alignment.policy_gradient.learner import parameter_groups
from components.alignment.policy_gradient.rollouts import Rollouts
from components.alignment.policy_gradient.update import Statistics, Updater
from components.alignment.ppo import learner as ppo
from components.config import Params, Ppo
from components.core.stats import RunningMoments
from components.errors import TrainingError
from components.passes.sequences import Sequences
from components.seeding import generator
from components.training.schedule import make_optimizer

Pairs = list[tuple[list[int], list[int]]]
Weights = dict[str, Tensor]
KL_COEF = 0.3
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
        updater = Updater(accelerator, trained, optimizer, settings, critic=settings, seed=1, method="ppo")
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
    for rows in minibatches(settings):
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
            share = 1 / count if settings.loss_aggregation == "token_mean" else 1 / (length * len(rows))
            for t in range(length):
                old, old_value, target, a = (
                    float(column[row, t])
                    for column in (rollouts.old_logprobs, rollouts.values, credit.returns, credit.advantages)
                )
                ratio = (new[t] - old).exp()
                held = ratio.clamp(1 - settings.clip_range_low, 1 + settings.clip_range_high)
                surrogate = torch.minimum(a * ratio, a * held)
                clipped += float(a * held < a * ratio)
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
    permuted = Rollouts(rollouts.sequences.rows(order), *(column[order] for column in rollouts[1:]))
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
        *(widen(column, 0, 2, torch.nan) for column in rollouts[3:]),
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
        updater = Updater(accelerator, pair, optimizer, chosen, critic=None, seed=1, method="rloo")
        found = updater.update(rollouts, credit, KL_COEF, iteration=0)
        assert "explained_variance" not in found  # nothing was explained
        weights.append(weights_of(pair.policy))
    assert_close(weights[1], weights[0])
    assert differ(weights[1], weights_of(model.policy))


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
