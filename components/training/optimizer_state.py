"""An optimiser's state in a safetensors file, by the names of the weights that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from components.artifacts import reading


def save_optimizer(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state of an AdamW over all parameters of `model`, in the model's own order."""
    names = [name for name, _ in model.named_parameters()]
    tensors = {
        f"{names[index]}/{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def load_optimizer(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser with the state stored at `path`.

    Raises:
        ArtifactError: the file is absent, corrupt, or of another model.
    """
    names = [name for name, _ in model.named_parameters()]
    with reading("optimiser state", path, "the state of this model's optimiser, whole"):
        tensors = load_file(path)
        state: dict[int, dict[str, Any]] = {
            index: {key: tensors[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, name in enumerate(names)
        }
        for index, weight in enumerate(model.parameters()):
            if state[index]["exp_avg"].shape != weight.shape:
                raise KeyError(f"{names[index]} of shape {tuple(weight.shape)}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
