"""Every public function of core, with arguments that it accepts."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import components.core
from components.core import (
    advantages,
    aggregation,
    calibration,
    chunked_logprobs,
    ilql,
    kl,
    logprobs,
    losses,
    masks,
    mismatch,
    pairs,
    policy_losses,
    rewards,
    stats,
)

MODULES = sorted(module.name for module in pkgutil.iter_modules(components.core.__path__))

B, T, V, M = 4, 3, 5, 2
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=GENERATOR)


MASK = torch.tensor([[True, True, False], [True, False, True], [True, True, True], [True, False, False]])
MASKED = {"x": normal(B, T), "mask": MASK}
CLIP = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}
HEAD = {
    "hidden": normal(B, T),
    "weight": normal(V, T),
    "tokens": torch.tensor([0, 3, 4, 1]),
    "bias": normal(V),
    "chunk": 2,
    "temperature": 0.7,
}
CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    masks.response_mask: {"tokens": tokens(), "eos_id": 2},
    masks.last_true_index: {"mask": MASK},
    masks.without_truncated: {"mask": MASK, "ended": MASK[:, 1]},
    stats.masked_sum: MASKED,
    stats.masked_mean: MASKED,
    stats.masked_var: MASKED,
    stats.whiten: MASKED,
    stats.RunningMoments().update: {"values": normal(B)},
    logprobs.vocabulary_logprobs: {"logits": normal(B, T, V), "temperature": 0.7},
    logprobs.token_logprobs_and_entropy: {"logits": normal(B, T, V), "tokens": tokens(), "temperature": 0.7},
    logprobs.token_logprobs: {"logits": normal(B, T, V), "tokens": tokens(), "temperature": 0.7},
    chunked_logprobs.chunked_logprobs: HEAD,
    chunked_logprobs.chunked_logprobs_and_entropy: HEAD,
    kl.kl_estimate: {"logprobs": normal(B, T), "ref_logprobs": normal(B, T), "estimator": "k3"},
    kl.best_of_n_kl: {"n": 4},
    mismatch.importance_weights: {"logprobs": normal(B, T), "engine_logprobs": normal(B, T), "mask": MASK, "cap": 2.0},
    mismatch.share_moved: {"before": normal(T), "after": normal(T), "own_before": normal(T), "own_after": normal(T)},
    kl.next_kl_coef: {"kl_coef": 0.1, "kl": 3.0, "target_kl": 6.0, "horizon": 1e4, "batch_size": B},
    rewards.per_token_rewards: {"scores": normal(B), "kl": normal(B, T), "kl_coef": 0.1, "mask": MASK},
    rewards.clip_scores: {"scores": normal(B), "limit": 0.5},
    rewards.missing_eos: {"scores": normal(B), "ended": MASK[:, 1], "mode": "subtract", "value": 1.0},
    rewards.length_penalty: {"lengths": torch.tensor([1, 5, 9, 7]), "limit": 8, "buffer": 4, "factor": 1.0},
    rewards.ensemble_score: {"scores": normal(M, B), "mode": "mean_minus_std", "k": 1.0},
    advantages.gae: {
        "rewards": normal(B, T),
        "values": normal(B, T),
        "mask": MASK,
        "gamma": 0.9,
        "gae_lambda": 0.9,
    },
    advantages.rloo: {"scores": normal(B), "group_size": 2},
    advantages.grpo: {"scores": normal(B), "group_size": 2},
    advantages.dr_grpo: {"scores": normal(B), "group_size": 2},
    advantages.groups_that_differ: {"scores": normal(B), "group_size": 2},
    pairs.best_and_worst: {"scores": normal(B), "group_size": 2},
    advantages.spread: {"per_sequence": normal(B), "mask": MASK},
    losses.policy_loss: {
        "new_logprobs": normal(B, T),
        "old_logprobs": normal(B, T),
        "advantages": normal(B, T),
        "mask": MASK,
        **CLIP,
    },
    losses.value_loss: {
        "values": normal(B, T),
        "old_values": normal(B, T),
        "returns": normal(B, T),
        "mask": MASK,
        "value_clip_range": 0.2,
    },
    policy_losses.gspo_loss: {
        "new_logprobs": normal(B, T),
        "old_logprobs": normal(B, T),
        "advantages": normal(B, T),
        "mask": MASK,
        "clip_low": 3e-4,
        "clip_high": 4e-4,
    },
    policy_losses.cispo_loss: {
        "new_logprobs": normal(B, T),
        "old_logprobs": normal(B, T),
        "advantages": normal(B, T),
        "mask": MASK,
        "clip_low": None,
        "clip_high": 4.0,
    },
    aggregation.aggregate: {"per_token": normal(B, T), "mask": MASK, "mode": "sequence_mean", "denominator": 4.0},
    aggregation.step_denominator: {"mask": MASK, "mode": "sum_over_limit", "limit": 5},
    losses.bradley_terry_loss: {"chosen": normal(B), "rejected": normal(B), "margin": 0.5},
    losses.dpo_loss: {
        "policy_chosen": normal(B),
        "policy_rejected": normal(B),
        "ref_chosen": normal(B),
        "ref_rejected": normal(B),
        "beta": 0.1,
    },
    calibration.pairwise_accuracy: {"chosen": normal(B), "rejected": normal(B)},
    losses.expectile_loss: {"diff": normal(B, T), "tau": 0.7},
    ilql.ilql_losses: {
        "logits": normal(B, T, V),
        "q_heads": [normal(B, T, V), normal(B, T, V)],
        "target_q_heads": [normal(B, T, V), normal(B, T, V)],
        "values": normal(B, T),
        "tokens": tokens(),
        "rewards": normal(B, T),
        "mask": MASK,
        "gamma": 0.9,
        "tau": 0.7,
        "beta": 1.0,
    },
    ilql.guided_logits: {"logits": normal(B, V), "q": normal(B, V), "v": normal(B), "beta": 1.0},
    ilql.polyak: {"target_params": [normal(B, T)], "params": [normal(B, T)], "alpha": 0.1},
    calibration.reliability_table: {
        "probabilities": torch.rand(B, generator=GENERATOR),
        "outcomes": MASK[:, 1],
        "bins": 3,
    },
    calibration.expected_calibration_error: {
        "probabilities": torch.rand(B, generator=GENERATOR),
        "outcomes": MASK[:, 1],
        "bins": 3,
    },
}


def name_of(function: Callable[..., Any]) -> str:
    return function.__qualname__


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []


every_function = pytest.mark.parametrize("function", CALLS, ids=name_of)
