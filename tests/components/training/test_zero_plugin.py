"""The plugin that a DeepSpeed config becomes is Accelerate's own; DeepSpeed itself is not needed to build it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate.utils import DeepSpeedPlugin

from components.config.accelerate import accelerate_config
from components.training.zero import plugin_for

ROOT = Path(__file__).resolve().parents[3]


def test_the_plugin_is_accelerates_and_leaves_clipping_and_batches_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
    config = accelerate_config(ROOT / "infra/accelerate/gpu_zero3_eight.yaml")
    assert config.deepspeed_config is not None
    plugin = plugin_for(config.deepspeed_config, config.mixed_precision)
    assert isinstance(plugin, DeepSpeedPlugin)
    assert (plugin.zero_stage, plugin.zero3_init_flag, plugin.gradient_accumulation_steps) == (3, False, 1)
    asked = plugin.deepspeed_config
    assert asked["zero_optimization"]["stage"] == 3
    assert asked["zero_optimization"]["offload_optimizer"]["device"] == "none"
    assert (asked["gradient_clipping"], asked["train_batch_size"]) == (0.0, 8)
    assert asked["torch_autocast"]["enabled"] and "bf16" not in asked
