"""Rollouts of another engine: its logprobs beside ours, the weights that mend the difference, and the limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from components.alignment.policy_gradient.mismatch import held_against_ours
from components.alignment.policy_gradient.objective import policy_term
from components.config import Generation, Params
from components.errors import TrainingError
from components.self_checks import Checks

ENGINE = {
    "engine": "vllm",
    "command": ["vllm"],
    "arguments": [],
    "environment": {},
    "dtype": "float32",
    "start_timeout_seconds": 1.0,
    "sleeps": False,
    "requests_at_once": 1,
    "timeout_seconds": 1.0,
    "max_probe_gap_nats_per_token": 1.0,
    "max_mismatch_kl_nats_per_token": 0.2,
    "importance_weight_cap": 1.5,
}
MASK = torch.tensor([[True, True], [True, False]])


def log(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows).log()


def generation(tiny_params: Callable[..., Params], **changes: Any) -> Generation:
    return tiny_params(generation=ENGINE | changes).generation


def test_figures_by_hand(tiny_params: Callable[..., Params]) -> None:
    """Ratios 2, 1 and 0.8; k3 of a ratio r is r - 1 - log r: (0.306853 + 0 + 0.023144) / 3 = 0.109999."""
    ours, engines = log([[0.4, 0.5], [0.4, 0.9]]), log([[0.2, 0.5], [0.5, 0.1]])
    figures, weights = held_against_ours(Checks(), ours, engines, MASK, generation(tiny_params), "ppo, iteration 1")
    assert figures["mismatch_kl"] == pytest.approx(0.109999, abs=1e-6)
    assert figures["mismatch_max"] == pytest.approx(math.log(2), abs=1e-6)
    assert figures["importance_weight"] == pytest.approx((1.5 + 1 + 0.8) / 3, abs=1e-6)
    torch.testing.assert_close(weights, torch.tensor([[1.5, 1.0], [0.8, 1.0]]), rtol=0, atol=1e-6)


def test_without_a_cap_there_are_no_weights(tiny_params: Callable[..., Params]) -> None:
    ours = log([[0.4, 0.5], [0.4, 0.9]])
    chosen = generation(tiny_params, importance_weight_cap=None)
    figures, weights = held_against_ours(Checks(), ours, ours, MASK, chosen, "ppo, iteration 1")
    assert weights is None and figures == {"mismatch_kl": 0.0, "mismatch_max": 0.0}


def test_a_run_stops_above_the_limit_and_names_it(tiny_params: Callable[..., Params]) -> None:
    """One token in three sampled at a third of our logprob: of ratios e^3 and 1, 1 the mean k3 is (e^3 - 4) / 3."""
    ours, engines = torch.zeros(2, 2), torch.tensor([[-3.0, 0.0], [0.0, -9.0]])
    with pytest.raises(TrainingError, match="samples from another policy") as caught:
        held_against_ours(Checks(), ours, engines, MASK, generation(tiny_params), "ppo, iteration 4")
    found = f"{(math.exp(3) - 4) / 3:.3g} nats a token, 1 of 3 tokens more than 1 nat apart, the farthest 3"
    assert caught.value.found == found
    assert "0.2 nats a token" in caught.value.expected and "max_mismatch_kl_nats_per_token" in caught.value.do
    assert caught.value.where == "ppo, iteration 4"


def test_our_own_engine_has_nothing_to_compare(tiny_params: Callable[..., Params]) -> None:
    ours = torch.zeros(2, 2)
    assert held_against_ours(Checks(), ours, ours, MASK, tiny_params().generation, "") == ({}, None)


@pytest.mark.parametrize("policy_loss", ["ppo", "gspo", "cispo"])
def test_weights_of_the_advantages_are_weights_of_the_policy_loss(
    settings: Callable[..., Any], policy_loss: str
) -> None:
    """Each loss of a token is its advantage times what does not depend on it, clipped or not."""
    of_gspo = {"loss_aggregation": "sequence_mean", "clip_range_low": 0.01, "clip_range_high": 0.02}
    chosen = settings(policy_loss=policy_loss, **(of_gspo if policy_loss == "gspo" else {}))
    draw = torch.Generator().manual_seed(4)
    old, new, advantages = (torch.randn(4, 3, generator=draw) for _ in range(3))
    weights, mask = torch.rand(4, 3, generator=draw) + 0.5, torch.ones(4, 3, dtype=torch.bool)
    plain = policy_term(chosen, new, old, advantages, mask).loss
    weighted = policy_term(chosen, new, old, advantages * weights, mask).loss
    torch.testing.assert_close(weighted, plain * weights, rtol=1e-5, atol=1e-6)
