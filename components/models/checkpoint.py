"""A model from its files: of the class that its config names, with all of its weights, without dropout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers.modeling_utils  # the slow part, here so that launch sees to its import
from torch import nn

from components.artifacts import reading
from components.passes.attention import use_packed_attention


def model_class(folder: Path) -> Any:
    """The concrete class that the config names: loading it alone is quicker than the Auto classes' machinery."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    if not hasattr(transformers, name):
        raise ValueError(f"transformers has no class {name}")
    return getattr(transformers, name)


def load_model(folder: Path) -> Any:
    """The model of a folder, of whatever class its config names."""
    with reading("model", folder, "config.json and model.safetensors, whole"):
        return from_pretrained(model_class(folder), folder)


def from_pretrained(model_class: Any, source: str | Path, **options: Any) -> Any:
    """A model with all of its weights: Hugging Face would draw those that a file lacks at random, and only warn."""
    try:
        model, report = model_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except RuntimeError as fault:  # tensors of other shapes than the config's
        raise ValueError(str(fault)) from fault
    if report["missing_keys"]:
        raise ValueError(f"no weights for {', '.join(sorted(report['missing_keys']))}")
    return use_packed_attention(no_dropout(model))


def no_dropout(model: Any) -> Any:
    """Switch dropout off for good: with it, old and new logprobs of the same weights differ and the ratio lies."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):  # as in the attention of Llama, Qwen and their kin
                setattr(module, name, 0.0)
    return model.eval()
