"""The steps of an iteration against the formula written out once more, with plain forwards of single sequences."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from components.alignment.dpo.learner import parameter_groups
from components.alignment.preferences.reference import reference_logprobs
from components.alignment.preferences.update import Statistics, Updater
from components.config import Dpo, Params
from components.errors import TrainingError
from components.measuring.measure import FrozenModels
from components.passes.sequences import Sequences
from components.training.schedule import make_optimizer

RATE = 0.05  # of gradient descent
ROWS = [5, 0, 7, 2, 6, 1, 4, 3]
Weights = dict[str, Tensor]


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., Dpo]:
    plain = {"comparisons_per_iteration": 8, "batch_size": 8, "microbatch_size": 8, "beta": 0.3, "gradient_clip": 1e6}
    plain |= {"loss": "sigmoid", "label_smoothing": 0.0}
    return lambda **changes: tiny_params(dpo=plain | changes).dpo


@pytest.fixture
def ref_logprobs(accelerator: Accelerator, frozen: FrozenModels, pairs: Sequences) -> Tensor:
    everything = [list(range(len(pairs) // 2))]
    return reference_logprobs(accelerator, frozen.reference, pairs, everything, temperature=0.8, microbatch_size=3)


@pytest.fixture
def updated(
    accelerator: Accelerator, policy: Any, pairs: Sequences, ref_logprobs: Tensor, comparisons: Any
) -> Callable[..., tuple[Weights, Statistics]]:
    """The weights after an update of a copy of the policy, by plain gradient descent unless told otherwise."""
    ids = [row.id for row in comparisons]

    def run(
        settings: Dpo, rows: Any = ROWS, optimizer: Any = None, prepare: Any = None, **changes: Any
    ) -> tuple[Weights, Statistics]:
        trained = copy.deepcopy(policy)
        if prepare:
            prepare(trained)
        optimizer = optimizer(trained) if optimizer else torch.optim.SGD(trained.parameters(), lr=RATE)
        arguments = {"pairs": pairs, "ref_logprobs": ref_logprobs} | changes
        updater = Updater(
            accelerator, trained, optimizer, ids=ids, settings=settings, temperature=0.8, method="dpo", **arguments
        )
        statistics = updater.update(torch.tensor(rows), iteration=0)
        return {name: weight.detach() for name, weight in trained.named_parameters()}, statistics

    return run


def by_the_formula(
    policy: Any, reference: Any, tokens: Any, settings: Dpo, plain_logprob: Any
) -> tuple[Weights, list[Statistics]]:
    """The weights after all steps, and each step's means: one sequence a forward, nothing of components.core."""
    steps = []
    for start in range(0, len(ROWS), settings.batch_size):
        batch = ROWS[start : start + settings.batch_size]
        sums = dict.fromkeys(("loss", "accuracy", "margin", "chosen_logprob", "rejected_logprob"), torch.zeros(()))
        for row in batch:
            prompt, *sides = tokens[row]
            chosen, rejected = (plain_logprob(policy, prompt, side) for side in sides)
            with torch.no_grad():
                ref_chosen, ref_rejected = (plain_logprob(reference, prompt, side) for side in sides)
            gap = (chosen - ref_chosen) - (rejected - ref_rejected)
            if settings.loss == "ipo":
                loss = (gap - 1 / (2 * settings.beta)) ** 2
            else:
                probability = 1 / (1 + (-settings.beta * gap).exp())
                e = settings.label_smoothing
                loss = -(1 - e) * probability.log() - e * (1 - probability).log()
            terms = {"loss": loss, "accuracy": (gap > 0).float(), "margin": settings.beta * gap}
            terms |= {"chosen_logprob": chosen, "rejected_logprob": rejected}
            sums = {name: total + terms[name] / len(batch) for name, total in sums.items()}
        policy.zero_grad()
        sums["loss"].backward()
        norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight in policy.parameters()))
        with torch.no_grad():
            for weight in policy.parameters():
                weight -= RATE * min(1.0, settings.gradient_clip / norm) * weight.grad
        steps.append({name: float(total.detach()) for name, total in sums.items()} | {"gradient_norm": norm})
    return {name: weight.detach() for name, weight in policy.named_parameters()}, steps


def assert_close(found: Weights, expected: Weights) -> None:
    for name, weight in expected.items():
        torch.testing.assert_close(
            found[name], weight, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_smoothing": 0.2},
        {"loss": "ipo"},
        {"batch_size": 4, "microbatch_size": 3},
        {"batch_size": 2, "microbatch_size": 1},
        {"microbatch_size": 3, "loss": "ipo", "beta": 0.5},
        {"gradient_clip": 0.05},
    ],
    ids=str,
)
def test_the_weights_move_as_the_formula_says(
    updated: Any, policy: Any, frozen: FrozenModels, tokens: Any, settings: Any, plain_logprob: Any, changes: Any
) -> None:
    found, statistics = updated(settings(**changes))
    moved = copy.deepcopy(policy)
    expected, steps = by_the_formula(moved, frozen.reference, tokens, settings(**changes), plain_logprob)
    before = dict(policy.named_parameters())
    assert any(float((weight - before[name]).abs().max()) > 1e-4 for name, weight in expected.items())
    assert_close(found, expected)
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    assert {name: statistics[name] for name in means} == pytest.approx(means, rel=1e-4, abs=1e-5)
    assert statistics["steps"] == len(steps)
    assert statistics["trained_tokens"] == sum(
        2 * len(tokens[row][0]) + len(tokens[row][1]) + len(tokens[row][2]) for row in ROWS
    )
    if not changes:
        assert 0 < statistics["accuracy"] < 1  # both kinds were tried


def test_reference_logprobs_are_plain_ones_of_the_comparisons_used(
    accelerator: Accelerator, frozen: FrozenModels, pairs: Sequences, tokens: Any, plain_logprob: Any
) -> None:
    calls: list[int] = []
    handle = frozen.reference.register_forward_hook(
        # Packed, all sequences lie in one row, and each begins at position 0.
        lambda module, args, kwargs, output: calls.append(int((kwargs["position_ids"] == 0).sum())),
        with_kwargs=True,
    )
    used = [[3, 1], [1, 4, 3], [3]]
    found = reference_logprobs(accelerator, frozen.reference, pairs, used, temperature=0.8, microbatch_size=8)
    handle.remove()
    assert sum(calls) == 6  # both responses of three comparisons, each once
    for row, (prompt, *sides) in enumerate(tokens):
        with torch.no_grad():
            expected = [float(plain_logprob(frozen.reference, prompt, side)) for side in sides]
        assert found[:, row].tolist() == pytest.approx(expected if row in (1, 3, 4) else [0.0, 0.0], abs=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_microbatch_size_changes_nothing(updated: Any, settings: Any, size: int) -> None:
    whole, numbers = updated(settings(batch_size=4, microbatch_size=4))
    split, split_numbers = updated(settings(batch_size=4, microbatch_size=size))
    assert_close(split, whole)
    assert split_numbers == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_the_order_within_a_batch_changes_nothing(updated: Any, settings: Any) -> None:
    expected, numbers = updated(settings(microbatch_size=3))
    found, found_numbers = updated(settings(microbatch_size=3), rows=sorted(ROWS))
    assert_close(found, expected)
    assert found_numbers == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_padding_changes_nothing_whatever_it_holds(updated: Any, settings: Any, pairs: Sequences) -> None:
    def widen(tensor: Tensor, left: int, right: int, filling: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (left, right), value=filling)

    padded = Sequences(
        widen(pairs.prompt_tokens, 3, 0, 9),
        widen(pairs.prompt_mask, 3, 0, False),
        widen(pairs.response_tokens, 0, 2, 9),
        widen(pairs.response_mask, 0, 2, False),
    )
    found, numbers = updated(settings(), pairs=padded)
    expected, expected_numbers = updated(settings())
    assert_close(found, expected)
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-5)


def test_adam_moves_by_the_learning_rate_that_its_groups_hold(updated: Any, settings: Any, policy: Any) -> None:
    """The product's optimiser: the first step of Adam moves a weight by its learning rate, whatever the gradient."""

    def adam(trained: Any) -> torch.optim.Optimizer:
        return make_optimizer(parameter_groups(trained, settings(learning_rate=0.01)), weight_decay=0.0)

    found, _ = updated(settings(), optimizer=adam)
    largest = max(float((found[name] - weight).abs().max()) for name, weight in policy.named_parameters())
    assert largest == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("size", [8, 2, 1])
def test_a_loss_that_is_not_finite_stops_and_names_the_comparisons(
    updated: Any, settings: Any, ref_logprobs: Tensor, comparisons: Any, size: int
) -> None:
    """The square of a gap of 1e25 nats is beyond float32."""
    broken = ref_logprobs.clone()
    broken[0, 6] = 1e25
    with pytest.raises(TrainingError) as caught:
        updated(settings(loss="ipo", microbatch_size=size), ref_logprobs=broken)
    assert caught.value.where == f"dpo, iteration 1, comparisons {comparisons[6].id}"


def test_a_gradient_that_is_not_finite_stops_and_names_the_batch(updated: Any, settings: Any, comparisons: Any) -> None:
    def overflow(trained: Any) -> None:
        trained.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(TrainingError) as caught:
        updated(settings(batch_size=4, microbatch_size=2), prepare=overflow)
    named = ", ".join(comparisons[row].id for row in ROWS[:4])
    assert caught.value.where == f"dpo, iteration 1, comparisons {named}"
