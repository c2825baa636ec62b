"""The parts of one DPO iteration on the tiny world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from components.config import Params
from components.data.rows import Comparison, read_rows
from components.measuring.measure import FrozenModels
from components.models.loading import load_policy
from components.passes.sequences import Sequences, comparison_pairs
from components.place import Place
from components.training.accelerator import start_accelerator

TEMPERATURE = 0.8  # where its omission would show
Tokens = list[int]


@pytest.fixture
def accelerator() -> Accelerator:
    return start_accelerator()


@pytest.fixture
def frozen(world: Path) -> FrozenModels:
    return FrozenModels.load(Place().frozen, torch.device("cpu"))


@pytest.fixture
def comparisons(world: Path) -> list[Comparison]:
    return read_rows(Place().clean / "comparisons_reward_model.jsonl", Comparison)


@pytest.fixture
def pairs(comparisons: list[Comparison], frozen: FrozenModels) -> Sequences:
    return comparison_pairs(comparisons, frozen.codec)


@pytest.fixture
def tokens(comparisons: list[Comparison], frozen: FrozenModels) -> list[tuple[Tokens, Tokens, Tokens]]:
    """Prompt, chosen and rejected response of every comparison, without padding."""
    codec = frozen.codec
    prompts = codec.encode_prompts([row.prompt for row in comparisons])
    sides = [codec.encode_responses([getattr(row, side) for row in comparisons]) for side in ("chosen", "rejected")]
    return list(zip(prompts, *sides, strict=True))


@pytest.fixture
def policy(world: Path) -> Any:
    """The SFT policy, moved a little away from it, so that no margin is zero."""
    policy = load_policy(Place().sft / "policy")
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    return policy


@pytest.fixture
def params(tiny_params: Callable[..., Params]) -> Params:
    return tiny_params(method="dpo", measurement={"temperature": TEMPERATURE})


@pytest.fixture
def plain_logprob() -> Callable[[Any, Tokens, Tokens], torch.Tensor]:
    """The logprob of a response, by one Hugging Face forward of the unpadded sequence."""

    def of(model: Any, prompt: Tokens, response: Tokens) -> torch.Tensor:
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
        total: torch.Tensor = torch.distributions.Categorical(logits=logits).log_prob(torch.tensor(response)).sum()
        return total

    return of
