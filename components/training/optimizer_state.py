"""An optimiser's state in a safetensors file, by the names of the weights that it belongs to.

Weights that the optimiser does not move, such as frozen ones below an adapter, have no part in it. Where weights are
sharded over processes, the file holds them whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from components.artifacts import reading
from components.training.sharding import plain_name
from components.training.zero import MOMENTS, engine_of, engine_state, load_engine_state

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_KEPT = ("step", *MOMENTS)  # of a weight, by Adam


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an AdamW, as `NAME OF A WEIGHT/KIND`, e.g. `lm_head.weight/exp_avg`.

    Every process has to call it, as each may hold a part; the first one is given the tensors.

    Args:
        model: not wrapped by Accelerate.
    """
    if (engine := engine_of(optimizer)) is not None:
        return engine_state(engine)
    whole: Mapping[str, Any] = get_optimizer_state_dict(model, _inner(optimizer), options=_WHOLE)
    state: Mapping[str, Mapping[str, Tensor]] = whole.get("state", {})
    return {f"{name}/{kind}": tensor for name, kept in state.items() for kind, tensor in kept.items()}


def load_optimizer(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser with the state stored at `path`; every process has to call it.

    Raises:
        ArtifactError: the file is absent, corrupt, or of another model.
    """
    engine = engine_of(optimizer)
    moved = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    weights = {
        plain_name(name): weight
        for name, weight in model.named_parameters()
        if (weight.requires_grad if engine is not None else id(weight) in moved)  # an engine steps flat ones
    }
    with reading("optimiser state", path, "the state of this model's optimiser, whole"):
        tensors = load_file(path)
        expected = {f"{name}/{kind}" for name in weights for kind in _KEPT}
        if unlike := expected.symmetric_difference(tensors):
            raise KeyError(f"{len(unlike)} names unlike this model's, such as {min(unlike)}")
        for name, weight in weights.items():
            shape = getattr(weight, "ds_shape", weight.shape)
            if (found := tensors[f"{name}/exp_avg"].shape) != shape:
                raise ValueError(f"{name} of shape {tuple(found)}, not {tuple(shape)}")
    if engine is not None:
        load_engine_state(engine, tensors)
        return
    groups = get_optimizer_state_dict(model, _inner(optimizer))["param_groups"]  # learning rates and the like, as made
    state: dict[str, Any] = {name: {kind: tensors[f"{name}/{kind}"] for kind in _KEPT} for name in weights}
    set_optimizer_state_dict(
        model,
        _inner(optimizer),
        {"state": state, "param_groups": groups},
        options=StateDictOptions(full_state_dict=True),
    )


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser itself, which Accelerate wraps."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
