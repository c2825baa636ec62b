"""The parts of one PPO iteration on the tiny world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from ppo_cycles import cycle  # noqa: F401  fixtures for all tests of this folder, as are the next ones
from ppo_updates import credit, settings, updated  # noqa: F401

from components.alignment.method import rows_of_iteration
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.checkpoint import load_model
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt, Rollouts
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.measuring.measure import FrozenModels
from components.place import Place
from components.training.accelerator import start_accelerator


@pytest.fixture
def accelerator() -> Accelerator:
    return start_accelerator()


@pytest.fixture
def frozen(world: Path) -> FrozenModels:
    return FrozenModels.load(Place().frozen, torch.device("cpu"))


@pytest.fixture
def model(world: Path) -> ActorCritic:
    """Policy and value model, the policy a little off the reference so that KL is not zero."""
    pair = load_model(Place().sft / "policy", Place().reward_model / "model")
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in pair.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    return pair


@pytest.fixture
def prompts(world: Path, frozen: FrozenModels) -> list[EncodedPrompt]:
    rows = read_rows(Place().clean / "prompts_train.jsonl", Prompt)
    return list(map(EncodedPrompt, rows, frozen.codec.encode_prompts([row.asked for row in rows])))


@pytest.fixture
def params(tiny_params: Callable[..., Params]) -> Params:
    """Tiny, at a temperature where its omission would show."""
    return tiny_params(ppo={"temperature": 0.8})


@pytest.fixture
def rollouts(
    accelerator: Accelerator,
    model: ActorCritic,
    frozen: FrozenModels,
    prompts: list[EncodedPrompt],
    params: Params,
) -> Rollouts:
    """Eight responses, some of which end, to eight prompts."""
    batch = rows_of_iteration(prompts, params.ppo.rollouts_per_iteration, 0, params.seed, "ppo/prompts")
    return Collector(
        accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method
    ).roll_out(batch, iteration=0)


@pytest.fixture
def pairs(rollouts: Rollouts) -> list[tuple[list[int], list[int]]]:
    """The rollouts' prompts and responses without padding."""
    columns = rollouts.sequences
    return [
        (prompt[mask].tolist(), response[response_mask].tolist())
        for prompt, mask, response, response_mask in zip(*columns, strict=True)
    ]


@pytest.fixture
def weights_of() -> Callable[[torch.nn.Module], dict[str, Any]]:
    """A copy of a model's weights."""
    return lambda model: {name: weight.detach().clone() for name, weight in model.named_parameters()}
