"""Frozen models in main memory while a policy is updated, where nobody asks them anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from components.models.adapter_views import shares_a_base


@contextmanager
def offloaded(frozen: Iterable[Any], trained: nn.Module, device: torch.device, *, asked: bool) -> Iterator[None]:
    """Within it, frozen models leave a GPU's memory to the updates; after it they are back on the device.

    What shares weights with the trained model stays, and so do adapters: to move their base would move the policy's.

    Args:
        frozen: models; whatever else scores responses is left alone.
        asked: language_model.offload_frozen. On a CPU there is nowhere to move to.
    """
    if not asked or device.type == "cpu":
        yield
        return
    in_use = {id(weight) for weight in trained.parameters()}
    moved = [
        model
        for model in frozen
        if isinstance(model, nn.Module)
        and not shares_a_base(model)
        and not any(id(weight) in in_use for weight in model.parameters())
    ]
    for model in moved:
        model.to("cpu")
    try:
        yield
    finally:
        for model in moved:
            model.to(device)
