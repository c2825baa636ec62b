"""The parts of one iteration of Q-learning on the tiny world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from components.alignment.q_learning.checkpoint import Checkpoint, start
from components.alignment.q_learning.dataset import ScoredComparisons, score_comparisons
from components.config import Params
from components.data.rows import Comparison, read_rows
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
def params(tiny_params: Callable[..., Params]) -> Params:
    return tiny_params(method="q_learning")


@pytest.fixture
def rows(world: Path) -> list[Comparison]:
    return read_rows(Place().clean / "comparisons_reward_model.jsonl", Comparison)


@pytest.fixture
def data(accelerator: Accelerator, frozen: FrozenModels, params: Params, rows: list[Comparison]) -> ScoredComparisons:
    return score_comparisons(accelerator, frozen, params.shared, rows)


@pytest.fixture
def begun(params: Params, world: Path) -> Checkpoint:
    """The start of a cycle, every weight a little moved: heads that say nothing would hide mistakes."""
    found = start(Place().sft, params.q_learning, params.seed, torch.device("cpu"))
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in (*found.learner.parameters(), *found.guided.target_q_heads.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=noise))
    return found


@pytest.fixture
def pairs(data: ScoredComparisons) -> list[tuple[list[int], list[int]]]:
    """Prompts and responses without padding, all chosen ones first."""
    return [
        (prompt[mask].tolist(), response[response_mask].tolist())
        for prompt, mask, response, response_mask in zip(*data.sequences, strict=True)
    ]


@pytest.fixture
def weights_of() -> Callable[[torch.nn.Module], dict[str, Any]]:
    """A copy of a model's weights."""
    return lambda model: {name: weight.detach().clone() for name, weight in model.named_parameters()}
