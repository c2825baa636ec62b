"""Records made by hand: three prompts of two kinds, two samples each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.config import Evaluation, Params, load_params

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = {"p1": "known", "p2": "known", "p3": "harmful", "p4": "harmful"}


def record(prompt_id: str, sample: int, **values: Any) -> dict[str, Any]:
    """A whole record; `values` replace what is plain in it."""
    plain = {
        "prompt_id": prompt_id,
        "prompt": f"question {prompt_id} ?",
        "kind": PROMPTS.get(prompt_id),
        "sample": sample,
        "response": "please swap the fuse .",
        "response_tokens": 6,
        "ended": True,
        "reward": 0.0,
        "judge": 0.0,
        "kl": 0.0,
        "entropy": 1.0,
        "gold": 0.5,
        "helpful": 0,
        "harmless": 1,
        "honest": 1,
    }
    return plain | values


@pytest.fixture
def sft() -> list[dict[str, Any]]:
    return [record(prompt, sample) for prompt in PROMPTS for sample in (0, 1)]


@pytest.fixture
def candidate() -> list[dict[str, Any]]:
    """Better than `sft` at every prompt, by gold 0.3 and judge 1, at 2 nats."""
    changed = {"response": "you should swap the fuse .", "gold": 0.8, "helpful": 1, "judge": 1.0, "kl": 2.0}
    return [record(prompt, sample, **changed) for prompt in PROMPTS for sample in (0, 1)]


@pytest.fixture
def settings() -> Evaluation:
    return Evaluation(confidence=0.95, shown_samples=3)


@pytest.fixture
def params(settings: Evaluation) -> Params:
    return load_params(ROOT / "params.yaml").model_copy(update={"evaluation": settings})
