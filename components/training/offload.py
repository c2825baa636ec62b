"""Frozen models in main memory while a policy samples or is updated, where nobody asks them anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from components.models.adapter_views import with_bases


@contextmanager
def offloaded(frozen: Iterable[Any], trained: nn.Module, device: torch.device, *, asked: bool) -> Iterator[None]:
    """Within it, frozen models leave a GPU's memory to what goes on; after it they are back on the device.

    What shares weights with the trained model stays, and so do adapters: to move their base would move the policy's.

    Args:
        frozen: models; whatever else scores responses is left alone.
        asked: language_model.offload_frozen. On a CPU there is nowhere to move to.
    """
    if not asked or device.type == "cpu":
        yield
        return
    in_use = _weights(trained)
    moved = [model for model in frozen if isinstance(model, nn.Module) and in_use.isdisjoint(_weights(model))]
    for model in moved:
        model.to("cpu")
    try:
        yield
    finally:
        for model in moved:
            model.to(device)


def _weights(model: nn.Module) -> set[int]:
    return {id(weight) for part in with_bases(model) for weight in part.parameters()}
