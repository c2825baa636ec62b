"""Every stage that computes, as DVC runs it, with the Accelerate config for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.artifacts import read_json
from components.config import Params
from components.place import Place

ROOT = Path(__file__).resolve().parents[3]
METHODS = ("ppo", "grpo", "rloo", "dpo", "online_dpo", "q_learning", "best_of_n")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def run_stage(world: Path, change_params: Callable[..., Params]) -> Callable[..., None]:
    """Runs a stage in a process of its own, with one of the methods."""

    def run(*arguments: str, method: str = "ppo") -> None:
        change_params(compute={"accelerate_config": str(ROOT / "infra/accelerate/gpu.yaml")}, method=method)
        subprocess.run(
            [sys.executable, "-m", "components.launch", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            check=True,
        )

    return run


@pytest.mark.parametrize("method", METHODS)
def test_a_cycle_of_every_method(run_stage: Callable[..., None], method: str) -> None:
    run_stage("alignment", "--cycle", "1", method=method)
    assert read_json(Place().alignment / "1" / "metrics.json")["validation"]["response_tokens"] > 0


def test_training_and_evaluation(run_stage: Callable[..., None]) -> None:
    for stage in ("sft", "reward_model", "judge"):
        run_stage(stage)
    run_stage("alignment", "--cycle", "1")
    run_stage("alignment", "--cycle", "2")
    run_stage("selection")
    run_stage("evaluation")
    assert (Place().evaluation / "metrics.json").exists()
