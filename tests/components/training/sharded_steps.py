"""Run by several ranks: two optimiser steps of a small model in shards; rank 0 leaves what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from components.config.accelerate import accelerate_config
from components.training.accelerator import start_accelerator
from components.training.sharding import frame_of, whole


def small_model() -> nn.Module:
    torch.manual_seed(1)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=2, max_position_embeddings=8, tie_word_embeddings=True)
    model: nn.Module = LlamaForCausalLM(config)
    return model


def tokens() -> torch.Tensor:
    return torch.arange(4 * 8).reshape(4, 8) % 32


def loss_of(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def main(config: Path, folder: Path) -> None:
    accelerator = start_accelerator(accelerate_config(config))
    model = small_model()
    frame = frame_of(accelerator, model)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    mine = sum(weight.to_local().numel() for weight in prepared.parameters())
    own_rows = tokens()[accelerator.process_index :: accelerator.num_processes]
    for _ in range(2):
        accelerator.backward(loss_of(prepared, own_rows))
        norm = float(accelerator.clip_grad_norm_(prepared.parameters(), 0.5))
        optimizer.step()
        optimizer.zero_grad()
    trained = whole(accelerator, model, frame)
    if accelerator.is_main_process:
        tied = trained.get_output_embeddings().weight is trained.get_input_embeddings().weight
        save_file({name: weight.detach().clone() for name, weight in trained.named_parameters()}, folder / "weights")
        (folder / "told").write_text(
            json.dumps({"mine": mine, "norm": norm, "kind": type(trained).__name__, "tied": tied})
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
