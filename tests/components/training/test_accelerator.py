"""FSDP2 as an Accelerate config asks for it: really in shards, and equal to one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from sharded_steps import loss_of, small_model, tokens

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "infra/accelerate/cpu_fsdp_two_processes.yaml"
RUN = """
import sys
from pathlib import Path
from components.config.accelerate import accelerate_config
from components.torchrun import run_ranks
run_ranks(accelerate_config(Path(sys.argv[1])), "sharded_steps", sys.argv[1:], meeting_s=60)
"""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fsdp_activation_checkpointing": True, "fsdp_reshard_after_forward": False},
        {"fsdp_auto_wrap_policy": "NO_WRAP"},
    ],
    ids=str,
)
def test_steps_in_shards_are_those_of_one_process(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = YAML(typ="safe").load(SHIPPED)
    config["fsdp_config"] |= changes
    YAML(typ="safe").dump(config, tmp_path / "accelerate.yaml")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    command = [sys.executable, "-c", RUN, str(tmp_path / "accelerate.yaml"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr

    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model, tokens()).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        optimizer.step()
    told = json.loads((tmp_path / "told").read_text())
    count = sum(weight.numel() for weight in model.parameters())
    assert told["mine"] == count / 2  # every dimension that is cut is even
    assert (told["kind"], told["tied"]) == ("LlamaForCausalLM", True)
    assert told["norm"] == pytest.approx(norm, rel=1e-5)
    weights = load_file(tmp_path / "weights")
    assert weights.keys() == {name for name, _ in model.named_parameters()}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weights[name], weight.detach(), rtol=0, atol=1e-5)
