"""Run by several ranks: steps of two models in one engine of DeepSpeed's, by the project's own step, on microbatches.

Half of the steps come after a reload of the optimiser's state from its file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sharded_steps import loss_of, tokens
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from components.config.accelerate import accelerate_config
from components.training.accelerator import start_accelerator
from components.training.fingerprint import fingerprint, weights_of
from components.training.optimizer_state import load_optimizer, optimizer_state
from components.training.schedule import ParameterGroup, make_optimizer, make_schedule, warmup_then
from components.training.sharding import frame_of, gathered, whole
from components.training.step import Contribution, OptimizerStep
from components.training.zero import prepare

CLIP = 1.5  # above 1, to which DeepSpeed clips where nobody says otherwise


class Pair(nn.Module):
    """Two models of odd sizes, so that shards are padded; one weight does not move."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"vocab_size": 37, "hidden_size": 18, "intermediate_size": 25, "num_hidden_layers": 2}
        config = LlamaConfig(**sizes, num_attention_heads=3, max_position_embeddings=8, tie_word_embeddings=True)
        self.first, self.second = LlamaForCausalLM(config), LlamaForCausalLM(config)
        self.second.model.norm.weight.requires_grad_(False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 10 * loss_of(self.first, rows) + 30 * loss_of(self.second, rows)


def small_pair() -> Pair:
    torch.manual_seed(1)
    return Pair()


def groups_of(model: Any) -> dict[str, ParameterGroup]:
    return {
        "first": ParameterGroup(model.first.parameters(), 0.01, warmup_then(2)),
        "second": ParameterGroup(model.second.parameters(), 0.02, warmup_then(3)),
    }


def work(folder: Path) -> None:
    accelerator = start_accelerator(accelerate_config(folder / "accelerate.yaml"))
    model = small_pair()
    frame = frame_of(accelerator, model)
    groups = groups_of(model)
    prepared, optimizer = prepare(accelerator, model, make_optimizer(groups, 0.01))
    schedule = make_schedule(optimizer, groups)
    parts = {"first_norm": model.first, "second_norm": model.second}
    step = OptimizerStep(accelerator, prepared, optimizer, CLIP, parts, "ppo", "rows")
    rows = tokens() % 37

    def contribution(part: torch.Tensor) -> Contribution:
        with accelerator.autocast():
            loss = prepared(rows[part]) * (len(part) / len(rows))
        return Contribution(loss, {"loss": loss.detach()})

    told: list[dict[str, float]] = []
    for half in range(2):
        for _ in range(2):
            told.append(step(torch.arange(len(rows)), torch.arange(len(rows)), 1, contribution, where="here"))
            schedule.step()
        state = optimizer_state(model, optimizer)
        if accelerator.is_main_process and half == 0:
            save_file(state, folder / "optimizer")
        accelerator.wait_for_everyone()
        if half == 0:
            for kept in optimizer.state.values():
                kept["exp_avg"].zero_()
            load_optimizer(folder / "optimizer", model, optimizer)
    prints = fingerprint(weights_of({"": model}))
    with gathered(accelerator, model, frame, everywhere=True) as amid:
        of_amid = fingerprint(weights_of({"": amid}))
        everywhere = float(loss_of(amid.first, rows))
    trained = whole(accelerator, model, frame)
    if accelerator.is_main_process:
        heads = [each.get_output_embeddings().weight for each in (trained.first, trained.second)]
        embeddings = [each.get_input_embeddings().weight for each in (trained.first, trained.second)]
        save_file({name: weight.detach().clone() for name, weight in trained.named_parameters()}, folder / "weights")
        words = {
            "figures": told,
            "tied": [head is embedding for head, embedding in zip(heads, embeddings, strict=True)],
            "prints": prints == of_amid,
            "everywhere": everywhere,
            "mine": sum(getattr(weight, "ds_tensor", weight).numel() for weight in model.parameters()),
            "moved": sorted({name.rpartition("/")[0] for name in state}),
        }
        (folder / "told").write_text(json.dumps(words))
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    for word in sys.argv[1:]:
        work(Path(word))
