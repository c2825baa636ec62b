"""DeepSpeed's ZeRO on two processes: steps, norms, the optimiser's state and whole weights are those of one process.

Skipped where DeepSpeed is not installed (`make test-deepspeed` has it).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from sharded_steps import loss_of, tokens
from zero_steps import CLIP, groups_of, small_pair

from components.training.schedule import make_optimizer, make_schedule

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "infra/accelerate/cpu_zero3_two_processes.yaml"
RUN = """
import sys
from pathlib import Path
from components.config.accelerate import accelerate_config
from components.torchrun import run_ranks
run_ranks(accelerate_config(Path(sys.argv[1], "accelerate.yaml")), "zero_steps", sys.argv[1:], meeting_s=60)
"""
pytestmark = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_steps_by_zero_are_those_of_one_process(tmp_path: Path, precision: str) -> None:
    config = YAML(typ="safe").load(SHIPPED)
    folders = {stage: tmp_path / f"zero-{stage}" for stage in (2, 3)}
    for stage, folder in folders.items():
        folder.mkdir()
        asked = config["deepspeed_config"] | {"zero_stage": stage}
        changed = config | {"mixed_precision": precision, "deepspeed_config": asked}
        YAML(typ="safe").dump(changed, folder / "accelerate.yaml")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    command = [sys.executable, "-c", RUN, *map(str, folders.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    model, rows = small_pair(), tokens() % 37
    groups = groups_of(model)
    optimizer = make_optimizer(groups, 0.01)
    schedule = make_schedule(optimizer, groups)
    figures = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = 0.0
        for row in rows.split(1):  # as each process computes it: bfloat16 rounds by what is multiplied together
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                part = model(row) / len(rows)
            part.backward()
            loss += float(part)
        norms = [float(torch.nn.utils.clip_grad_norm_(each.parameters(), CLIP)) for each in (model.first, model.second)]
        optimizer.step()
        schedule.step()
        figures.append({"loss": loss, "first_norm": norms[0], "second_norm": norms[1]})
    for stage, folder in folders.items():
        told = json.loads((folder / "told").read_text())
        assert all(norm > CLIP for norm in norms)  # both were clipped, each to its own
        for found, expected in zip(told["figures"], figures, strict=True):
            assert found == pytest.approx(expected, rel=1e-4)
        assert told["tied"] == [True, True] and told["prints"]
        assert told["everywhere"] == pytest.approx(float(loss_of(model.first, rows)), rel=1e-4)
        count = sum(weight.numel() for weight in model.parameters())
        assert told["mine"] == count if stage == 2 else count / 2 <= told["mine"] < count / 2 + 50  # padded
        assert told["moved"] == sorted(name for name, weight in model.named_parameters() if weight.requires_grad)
        weights = load_file(folder / "weights")
        assert weights.keys() == {name for name, _ in model.named_parameters()}
        atol = {"no": 1e-4, "bf16": 5e-4}[precision]
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weights[name], weight.detach(), rtol=0, atol=atol)  # reason: a bound a precision
