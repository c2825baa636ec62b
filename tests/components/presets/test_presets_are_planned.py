"""`proximal plan` takes every preset for GPUs as it is, with the tiny checkpoints of its architectures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from preset_worlds import PRESETS, ROOT, write_checkpoint

from components.config import load_params
from components.interface.plan.device import device_of
from components.interface.plan.estimate import estimate
from components.place import Place

PHASES = {"rollouts", "scoring", "updates"}


@pytest.mark.parametrize(
    ("preset", "architecture", "sft"),
    [
        ("qwen2.5-0.5b", "qwen2", True),
        ("qwen2.5-7b-lora", "phi3", False),
        ("qwen2.5-7b-lora", "gemma3_text", False),
        ("llama-3.1-8b-fsdp2", "llama", True),
    ],
)
def test_a_preset_is_planned(preset: str, architecture: str, sft: bool, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "infra" / "accelerate", tmp_path / "infra" / "accelerate")
    write_checkpoint(tmp_path / "tiny", architecture)
    shorter = {"language_model.max_prompt_tokens": 96, "language_model.max_response_tokens": 32}
    params = load_params(PRESETS / f"{preset}.yaml", {"language_model.checkpoint": str(tmp_path / "tiny"), **shorter})
    found = estimate(params, Place(tmp_path), device_of("80"))
    assert found.fits and not found.knobs
    phases = {row.phase.name for row in found.rows if row.phase.stage == "alignment"}
    assert phases == PHASES
    stages = {row.phase.stage for row in found.rows}
    assert stages == {"reward_model", "judge", "alignment", "evaluation"} | ({"sft"} if sft else set())
