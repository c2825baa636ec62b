"""A step and its optimiser's state with weights sharded over two processes (FSDP2 on gloo) are those of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]

# What each process does; without a launcher it is the only one. Half of the steps come after a reload of the state.
WORKER = """
import os, sys
from pathlib import Path
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from components.training.optimizer_state import load_optimizer, optimizer_state
from components.training.schedule import ParameterGroup, make_optimizer, warmup_then
from components.training.step import Contribution, OptimizerStep

out = Path(sys.argv[1])
accelerator = Accelerator(cpu=True)
sharded = accelerator.num_processes > 1
if sharded:
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="no_wrap", cpu_ram_efficient_loading=False
    )
    accelerator.state.distributed_type = DistributedType.FSDP
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2), nn.Linear(2, 1)).double()
model[2].bias.requires_grad_(False)
rows = torch.randn(8, 4, dtype=torch.double)
groups = {"all": ParameterGroup(model.parameters(), 0.1, warmup_then(0))}
optimizer = make_optimizer(groups, 0.01)
prepared, optimizer = accelerator.prepare(model, optimizer)
if sharded:
    assert {type(weight).__name__ for weight in prepared.parameters()} == {"DTensor"}
for part in range(2):
    step = OptimizerStep(accelerator, prepared, optimizer, 0.01, {"norm": prepared}, "ppo", "rows")

    def contribution(part):
        losses = prepared(rows[part]).squeeze(-1).square()
        return Contribution(losses.sum() / 8, {"loss": losses.detach().sum()}, losses.detach())

    for _ in range(2):
        figures = step(torch.arange(8), torch.arange(8), 2, contribution, where="here")
    state = optimizer_state(accelerator.unwrap_model(prepared), optimizer)
    if accelerator.is_main_process:
        save_file(state, out / "optimizer.safetensors")
    accelerator.wait_for_everyone()
    for kept in optimizer.state.values():
        kept["exp_avg"].zero_()
    load_optimizer(out / "optimizer.safetensors", accelerator.unwrap_model(prepared), optimizer)
whole = get_model_state_dict(prepared, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
if accelerator.is_main_process:
    whole["figures"] = torch.tensor([figures["loss"], figures["norm"]], dtype=torch.double)
    save_file(whole, out / "model.safetensors")
accelerator.wait_for_everyone()
"""


def run(folder: Path, *launcher: str) -> dict[str, torch.Tensor]:
    folder.mkdir()
    (folder / "worker.py").write_text(WORKER)
    subprocess.run(
        [sys.executable, *launcher, str(folder / "worker.py"), str(folder)], cwd=ROOT, check=True, timeout=300
    )
    found = {}
    for file in ("model", "optimizer"):
        found |= {f"{file}/{name}": tensor for name, tensor in load_file(folder / f"{file}.safetensors").items()}
    return found


def test_two_processes_with_sharded_weights_take_the_steps_of_one(tmp_path: Path) -> None:
    """Clipped (the norm is above 0.01), with a frozen weight, and with the state stored and loaded in between."""
    one = run(tmp_path / "one")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = run(tmp_path / "two", *launcher)
    assert one.keys() == two.keys() and "optimizer/2.bias/exp_avg" not in one
    assert float(one["model/figures"][1]) > 0.01
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )
