"""Optimiser steps against the formulas written out once more, with plain Hugging Face forwards of single sequences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.q_learning.checkpoint import Checkpoint
from components.alignment.q_learning.dataset import ScoredComparisons
from components.alignment.q_learning.update import Statistics, update
from components.config import Params, QLearning
from components.errors import TrainingError
from components.passes.sequences import Sequences

Pairs = list[tuple[list[int], list[int]]]
Weights = dict[str, Tensor]
RATE = 0.05  # of gradient descent
COMPARISONS = [5, 0, 3, 7, 2, 6]


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., QLearning]:
    """One step of six comparisons, every term with a weight of its own."""
    plain = {
        "comparisons_per_iteration": 6,
        "batch_size": 6,
        "microbatch_size": 6,
        "gamma": 0.9,
        "tau": 0.7,
        "cql_coef": 0.3,
        "awac_coef": 0.8,
        "awac_beta": 0.6,
        "polyak_alpha": 0.25,
        "gradient_clip": 1e6,
    }
    return lambda **changes: tiny_params(q_learning=plain | changes).q_learning


def gradient_descent(learner: nn.Module) -> torch.optim.Optimizer:
    """Adam would turn the rounding of a gradient near zero into a whole step."""
    return torch.optim.SGD(learner.parameters(), lr=RATE)


@pytest.fixture
def updated(
    accelerator: Accelerator, begun: Checkpoint, data: ScoredComparisons, weights_of: Callable[[Any], Weights]
) -> Callable[..., tuple[Weights, Weights, Statistics]]:
    """The weights of learner and target heads after the steps, on copies."""

    def run(
        settings: QLearning, comparisons: list[int] = COMPARISONS, changed: ScoredComparisons = data
    ) -> tuple[Weights, Weights, Statistics]:
        learner, targets = copy.deepcopy((begun.learner, begun.guided.target_q_heads))
        optimizer = gradient_descent(learner)
        statistics = update(accelerator, learner, targets, optimizer, changed, comparisons, settings, iteration=0)
        return weights_of(learner), weights_of(targets), statistics

    return run


def assert_close(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(
            found[name], weight, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def layers(head: nn.Module, hidden: Tensor) -> Tensor:
    weights = dict(head.named_parameters())
    inner = (hidden @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    return inner @ weights["2.weight"].T + weights["2.bias"]


def by_the_formulas(
    begun: Checkpoint, data: ScoredComparisons, pairs: Pairs, settings: QLearning
) -> tuple[Weights, Weights, Statistics]:
    """The same a token at a time, one unpadded sequence a forward, nothing of components.core."""
    learner, targets = copy.deepcopy((begun.learner, begun.guided.target_q_heads))
    policy, count = learner.policy, len(data.ids)
    steps = []
    for start in range(0, len(COMPARISONS), settings.batch_size):
        batch = COMPARISONS[start : start + settings.batch_size]
        sums = dict.fromkeys(("q_loss", "value_loss", "cql_loss", "awac_loss"), torch.zeros(()))
        q_sum = value_sum = right = 0.0
        number = sum(len(pairs[row][1]) for one in batch for row in (one, one + count))
        for one in batch:
            summed = []
            for row in (one, one + count):
                prompt, response = pairs[row]
                tokens = torch.tensor([prompt + response])
                hidden = policy.base_model(tokens).last_hidden_state[0, len(prompt) - 1 : -1]
                logprobs = policy(tokens).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
                values = layers(learner.value_head, hidden)[:, 0]
                heads = [layers(head, hidden) for head in learner.q_heads]
                target_heads = [layers(head, hidden) for head in targets]
                advantages = 0.0
                for t, token in enumerate(response):
                    at_end = t + 1 == len(response)
                    target = float(data.rewards[row]) if at_end else settings.gamma * float(values[t + 1].detach())
                    smaller = min(float(head[t, token].detach()) for head in target_heads)
                    gap = smaller - values[t]
                    weight = settings.tau if float(gap.detach()) >= 0 else 1 - settings.tau
                    sums["value_loss"] = sums["value_loss"] + weight * gap**2 / number
                    for head in heads:
                        sums["q_loss"] = sums["q_loss"] + (head[t, token] - target) ** 2 / number
                        cross_entropy = head[t].logsumexp(dim=0) - head[t, token]
                        sums["cql_loss"] = sums["cql_loss"] + cross_entropy / number
                    weight = float((settings.awac_beta * gap.detach()).exp())
                    sums["awac_loss"] = sums["awac_loss"] - logprobs[t, token] * weight / number
                    q_sum += sum(float(head[t, token].detach()) for head in heads) / 2 / number
                    value_sum += float(values[t].detach()) / number
                    advantages += float(gap.detach())
                summed.append(advantages)
            right += float(summed[0] > summed[1]) / len(batch)
        loss = sums["q_loss"] + sums["value_loss"]
        loss = loss + settings.cql_coef * sums["cql_loss"] + settings.awac_coef * sums["awac_loss"]
        learner.zero_grad()
        loss.backward()
        with torch.no_grad():
            norm = sum(float(weight.grad.square().sum()) for weight in learner.parameters()) ** 0.5
            for weight in learner.parameters():
                weight -= RATE * min(1.0, settings.gradient_clip / norm) * weight.grad
            for target_weight, weight in zip(targets.parameters(), learner.q_heads.parameters(), strict=True):
                target_weight += settings.polyak_alpha * (weight - target_weight)
        step = {name: float(total) for name, total in sums.items()} | {"loss": float(loss), "accuracy": right}
        steps.append(step | {"q": q_sum, "value": value_sum, "gradient_norm": norm})
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    weights = [{name: w.detach() for name, w in module.named_parameters()} for module in (learner, targets)]
    return weights[0], weights[1], means


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 2, "microbatch_size": 2},  # three steps: the second and third meet targets that have moved
        {"batch_size": 3, "microbatch_size": 2, "gamma": 1.0, "tau": 0.2},
        {"cql_coef": 0.0, "awac_coef": 0.0},
        {"awac_beta": 0.0, "gradient_clip": 0.2},
    ],
    ids=str,
)
def test_the_weights_move_as_the_formulas_say(
    updated: Any, begun: Checkpoint, data: ScoredComparisons, pairs: Pairs, settings: Any, weights_of: Any, changes: Any
) -> None:
    found, found_targets, statistics = updated(settings(**changes))
    expected, expected_targets, numbers = by_the_formulas(begun, data, pairs, settings(**changes))
    assert_close(found, expected)
    assert_close(found_targets, expected_targets)
    before = weights_of(begun.learner)
    for part in ("policy", "value_head", "q_heads"):
        assert max(float((found[n] - w).abs().max()) for n, w in before.items() if n.startswith(part)) > 1e-4
    steps = 6 // settings(**changes).batch_size
    tokens = sum(len(p) + len(r) for one in COMPARISONS for p, r in (pairs[one], pairs[one + len(data.ids)]))
    assert statistics.pop("steps") == steps and statistics.pop("trained_tokens") == tokens
    assert statistics == pytest.approx(numbers, rel=1e-3, abs=1e-5)
    assert statistics["gradient_norm"] > 0.2  # the limit of the last case is reached


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_microbatch_size_changes_nothing(updated: Any, settings: Any, size: int) -> None:
    """A mean over each microbatch would weigh its tokens by their company."""
    whole, whole_targets, numbers = updated(settings(batch_size=3, microbatch_size=3))
    split, split_targets, split_numbers = updated(settings(batch_size=3, microbatch_size=min(size, 3)))
    assert_close(split, whole)
    assert_close(split_targets, whole_targets)
    assert split_numbers == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_the_order_within_a_batch_changes_nothing(updated: Any, settings: Any) -> None:
    found, _, numbers = updated(settings(microbatch_size=4), comparisons=[2, 7, 6, 0, 5, 3])
    expected, _, expected_numbers = updated(settings(microbatch_size=4))
    assert_close(found, expected)
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-5)


def test_padding_changes_nothing_whatever_it_holds(updated: Any, settings: Any, data: ScoredComparisons) -> None:
    def widen(tensor: Tensor, left: int, right: int, filling: float) -> Tensor:
        return nn.functional.pad(tensor, (left, right), value=filling)

    prompt_tokens, prompt_mask, response_tokens, response_mask = data.sequences
    padded = Sequences(
        widen(prompt_tokens, 3, 0, 9),
        widen(prompt_mask, 3, 0, False),
        widen(response_tokens, 0, 2, 9),
        widen(response_mask, 0, 2, False),
    )
    found, _, numbers = updated(settings(), changed=data._replace(sequences=padded))
    expected, _, expected_numbers = updated(settings())
    assert_close(found, expected)
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-5)


def test_the_target_heads_move_at_every_step_and_are_not_trained(updated: Any, settings: Any, weights_of: Any) -> None:
    """With alpha 1 they are the trained heads of the last step."""
    weights, targets, _ = updated(settings(batch_size=2, microbatch_size=2, polyak_alpha=1.0))
    q_heads = {name.removeprefix("q_heads."): weight for name, weight in weights.items() if "q_heads" in name}
    assert targets.keys() == q_heads.keys()
    assert all(torch.equal(targets[name], weight) for name, weight in q_heads.items())


@pytest.mark.parametrize("broken", [4, "rejected"])
def test_a_loss_that_is_not_finite_names_the_comparison(
    updated: Any, settings: Any, data: ScoredComparisons, broken: Any
) -> None:
    """The square of a reward of 1e25 is beyond float32; its response is the chosen or the rejected one."""
    rewards = data.rewards.clone()
    rewards[3 if broken == 4 else len(data.ids) + 3] = 1e25
    for size in (6, 2, 1):
        with pytest.raises(TrainingError) as caught:
            updated(settings(microbatch_size=size), changed=data._replace(rewards=rewards))
        assert caught.value.where == f"q_learning, iteration 1, comparisons {data.ids[3]}"
        assert "q_loss inf" in caught.value.found


def test_a_gradient_that_is_not_finite_stops_before_the_step(
    accelerator: Accelerator, begun: Checkpoint, data: ScoredComparisons, settings: Any, weights_of: Any
) -> None:
    """A loss of 1e36 is finite, its gradient is not once it is carried back through weights of 1e10."""
    learner = begun.learner
    with torch.no_grad():
        learner.q_heads[0][2].weight.mul_(1e10)
    rewards = data.rewards.clone()
    before = weights_of(learner)
    with pytest.raises(TrainingError, match="not finite") as caught:
        update(
            accelerator,
            learner,
            begun.guided.target_q_heads,
            gradient_descent(learner),
            data._replace(rewards=rewards * 1e17),
            COMPARISONS,
            settings(cql_coef=0.0),
            iteration=1,
        )
    assert caught.value.where.startswith("q_learning, iteration 2, comparisons ")
    assert all(torch.equal(weight, before[name]) for name, weight in learner.named_parameters())
