"""What processes cannot share is refused with a value that they can: the advice is taken, and it holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import Params
from components.config.accelerate import accelerate_config
from components.config.shares import TRAINING_STAGES, require_shares
from components.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
ACCELERATE = ROOT / "infra" / "accelerate"


@pytest.mark.parametrize(
    ("stage", "section", "settings"),
    [
        ("sft", "sft", {"batch_size": 4, "microbatch_size": 1}),
        ("reward_model", "reward_model", {"batch_size": 7, "microbatch_size": 1}),
        ("alignment", "ppo", {"rollouts_per_iteration": 9, "minibatches": 3, "microbatch_size": 1}),
        ("alignment", "ppo", {"rollouts_per_iteration": 16, "minibatches": 4, "microbatch_size": 1}),
        (
            "alignment",
            "grpo",
            {"rollouts_per_iteration": 30, "minibatches": 2, "microbatch_size": 1, "responses_per_prompt": 5},
        ),
    ],
)
def test_the_advice_fits(
    tiny_params: Callable[..., Params], stage: str, section: str, settings: dict[str, Any]
) -> None:
    config = accelerate_config(ACCELERATE / "gpu_eight.yaml")
    method = section if stage == "alignment" else "ppo"
    params = tiny_params(method=method, **{section: settings})
    with pytest.raises(ConfigError, match="would not all have their share") as caught:
        require_shares(stage, params, config)
    advice = re.match(r"set (\w+)\.(\w+) to (\d+), which fits", caught.value.do)
    assert advice is not None and advice[1] == section
    require_shares(stage, tiny_params(method=method, **{section: settings | {advice[2]: int(advice[3])}}), config)


def test_in_shards_a_batch_is_a_multiple(tiny_params: Callable[..., Params]) -> None:
    config = accelerate_config(ACCELERATE / "gpu_fsdp2_eight.yaml")
    with pytest.raises(ConfigError, match="would not all have their share") as caught:
        require_shares("sft", tiny_params(sft={"batch_size": 12, "microbatch_size": 1}), config)
    assert caught.value.do.startswith("set sft.batch_size to 16")


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("qwen2.5-0.5b", ["gpu", "gpu_eight"]),
        ("qwen2.5-7b-lora", ["gpu", "gpu_eight"]),
        ("llama-3.1-8b-fsdp2", ["gpu_fsdp2_eight"]),
    ],
)
def test_the_presets_are_shared_by_the_gpus_that_they_are_for(preset: str, names: list[str]) -> None:
    from components.config import load_params

    params = load_params(ROOT / "infra" / "presets" / f"{preset}.yaml")
    assert params.compute.accelerate_config == f"infra/accelerate/{names[0]}.yaml"
    for name in names:
        config = accelerate_config(ACCELERATE / f"{name}.yaml")
        for stage in TRAINING_STAGES:
            require_shares(stage, params, config)
