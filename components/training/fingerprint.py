"""What weights are, in a few whole numbers: the same bits have the same ones, however they are stored or sharded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from components.training.sharding import plain_name
from components.training.zero import my_share

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def fingerprint(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sum of each tensor's numbers, their bits read as whole numbers.

    A number that changes changes it, by however little. Where tensors are sharded over processes, all of these have to
    call it, and all are given the sums of the whole tensors.
    """
    if not tensors:
        return {}
    sums, sharded = [], []
    for tensor in tensors.values():
        share = tensor.to_local() if isinstance(tensor, DTensor) else my_share(tensor)
        here: Tensor = tensor if share is None else share
        sums.append(here.detach().view(_AS_INTEGERS[here.element_size()]).sum(dtype=torch.int64).reshape(1))
        sharded.append(share is not None)
    device = sums[0].device
    found = torch.cat([part.to(device) for part in sums])
    if any(sharded):
        elsewhere = torch.where(torch.tensor(sharded, device=device), found, 0)
        torch.distributed.all_reduce(elsewhere)
        found = torch.where(torch.tensor(sharded, device=device), elsewhere, found)
    return dict(zip(tensors, found.tolist(), strict=True))


def weights_of(models: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of several models, by `MODEL/NAME OF A WEIGHT`."""
    return {
        f"{key}/{plain_name(name)}": weight
        for key, model in models.items()
        for name, weight in model.named_parameters()
    }
