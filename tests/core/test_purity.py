"""For every function of core/: arguments stay as they are, nothing is broadcast, nothing else happens."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import components.core
from components.core import advantages, calibration, ilql, kl, logprobs, losses, masks, rewards, stats

MODULES = sorted(module.name for module in pkgutil.iter_modules(components.core.__path__))
CORE = Path(components.core.__file__).parent

B, T, V, M = 4, 3, 5, 2
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=GENERATOR)


MASK = torch.tensor([[True, True, False], [True, False, True], [True, True, True], [True, False, False]])
MASKED = {"x": normal(B, T), "mask": MASK}
CLIP = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}

# Every public function, with arguments that it accepts.
CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    masks.response_mask: {"tokens": tokens(), "eos_id": 2},
    masks.last_true_index: {"mask": MASK},
    stats.masked_sum: MASKED,
    stats.masked_mean: MASKED,
    stats.masked_var: MASKED,
    stats.whiten: MASKED,
    stats.RunningMoments().update: {"values": normal(B)},
    logprobs.vocabulary_logprobs: {"logits": normal(B, T, V), "temperature": 0.7},
    logprobs.token_logprobs_and_entropy: {"logits": normal(B, T, V), "tokens": tokens(), "temperature": 0.7},
    logprobs.token_logprobs: {"logits": normal(B, T, V), "tokens": tokens(), "temperature": 0.7},
    kl.kl_estimate: {"logprobs": normal(B, T), "ref_logprobs": normal(B, T), "estimator": "k3"},
    kl.best_of_n_kl: {"n": 4},
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
    losses.aggregate: {"per_token": normal(B, T), "mask": MASK, "mode": "sequence_mean", "denominator": 4.0},
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


def test_every_public_function_is_called_here():
    public = {
        f"{module}.{name}"
        for module in MODULES
        if module != "checks"
        for name, member in vars(importlib.import_module(f"components.core.{module}")).items()
        if inspect.isfunction(member) and member.__module__.endswith(f".{module}") and not name.startswith("_")
    }
    called = {f"{function.__module__.rpartition('.')[2]}.{function.__name__}" for function in CALLS}
    assert public - called == set()


@every_function
def test_arguments_stay_as_they_are(function):
    arguments = CALLS[function]
    before = [(tensor.clone(), tensor._version) for tensor in tensors_in(arguments)]
    function(**arguments)
    for tensor, (copy, version) in zip(tensors_in(arguments), before, strict=True):
        assert torch.equal(tensor, copy) and tensor._version == version


@every_function
def test_the_same_arguments_give_the_same_bits_and_draw_nothing(function):
    state = torch.get_rng_state()
    first, second = function(**CALLS[function]), function(**CALLS[function])
    assert torch.equal(state, torch.get_rng_state())
    if isinstance(first, Tensor | tuple | list) and tensors_in(first):
        pairs = zip(tensors_in(first), tensors_in(second), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    else:
        assert first == second


@every_function
def test_nothing_is_broadcast(function):
    """A tensor of one row, or with a dimension more, would broadcast with the others: it is refused."""
    arguments = CALLS[function]
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
    if len(tensors_in(arguments)) < 2:
        return
    for name in names:
        for wrong in (arguments[name][:1], arguments[name].unsqueeze(0)):
            with pytest.raises(ValueError, match="expected"):
                function(**(arguments | {name: wrong}))


ALLOWED_IMPORTS = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "math",
    "torch",
    "torch.nn.functional",
    "typing",
    "components.errors",
    *(f"components.core.{module}" for module in MODULES),
}


every_masked_function = pytest.mark.parametrize(
    "function",
    [function for function, arguments in CALLS.items() if {"mask", "ended"} & set(arguments)],
    ids=name_of,
)


@every_masked_function
def test_a_mask_of_numbers_is_refused(function):
    arguments = CALLS[function]
    name = "mask" if "mask" in arguments else "ended"
    with pytest.raises(ValueError, match=f"{name}: expected dtype torch.bool"):
        function(**(arguments | {name: arguments[name].float()}))


# Functions that take tensors of any shape, as long as they agree.
OF_ANY_SHAPE = {
    "masked_sum",
    "masked_mean",
    "masked_var",
    "whiten",
    "RunningMoments.update",
    "vocabulary_logprobs",
    "token_logprobs",
    "token_logprobs_and_entropy",
    "kl_estimate",
    "best_of_n_kl",
    "next_kl_coef",
    "expectile_loss",
    "guided_logits",
    "polyak",
}


def with_one_more_dimension(value: Any) -> Any:
    if isinstance(value, list):
        return [with_one_more_dimension(part) for part in value]
    return value.unsqueeze(0) if isinstance(value, Tensor) else value


@every_function
def test_a_dimension_more_in_every_argument_is_refused_or_means_the_same(function):
    arguments = CALLS[function]
    deeper = {name: with_one_more_dimension(value) for name, value in arguments.items()}
    if name_of(function) not in OF_ANY_SHAPE:
        with pytest.raises(ValueError, match="expected"):
            function(**deeper)
    else:
        results = zip(tensors_in(function(**arguments)), tensors_in(function(**deeper)), strict=True)
        assert all(torch.equal(flat.flatten(), deep.flatten()) for flat, deep in results)


# Other devices, randomness, gradients, and everything that works in place.
FORBIDDEN_METHODS = r"cuda|cpu|backward|manual_seed|multinomial|rand\w*|\w*[a-z]_"


def impurities(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name not in ALLOWED_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and node.module not in ALLOWED_IMPORTS:
            found.append(str(node.module))
        elif isinstance(node, ast.Name) and node.id in {"open", "print"}:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and re.fullmatch(FORBIDDEN_METHODS, node.attr):
            found.append(node.attr)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [f"in place: {ast.unparse(target)}" for target in targets if isinstance(target, ast.Subscript)]
    return found


@pytest.mark.parametrize("module", [*MODULES, "__init__"])
def test_a_module_of_core_only_computes(module):
    assert impurities((CORE / f"{module}.py").read_text()) == []


def test_what_does_more_than_compute_is_seen():
    lines = ["import os", "x.add_(1)", "x[0] = 1", "x[0] += 1", "print(x)", "x.cuda()", "torch.randn(3)"]
    assert sorted(impurities("\n".join([*lines, "from flows import rlhf"]))) == sorted(
        ["os", "add_", "in place: x[0]", "in place: x[0]", "print", "cuda", "randn", "flows"]
    )
