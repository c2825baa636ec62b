"""A recorded function gives what it gives unrecorded, and Python starts its kernels no more."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from components.engines.cuda_graphs import Recorded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Batch(NamedTuple):
    rows: tuple[Tensor, int]
    scale: Tensor


class Found(NamedTuple):
    numbers: dict[str, Tensor]
    total: Tensor


def test_every_shape_is_replayed_with_its_own_inputs_and_adds_its_gradients() -> None:
    torch.manual_seed(1)
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(20))).cuda()
    python_calls: list[torch.Size] = []

    def accumulate(batch: Batch) -> Found:
        python_calls.append(batch.rows[0].shape)
        total = (layers(batch.rows[0]).square().sum() * batch.scale) / batch.rows[1]
        total.backward()
        return Found({"largest": batch.rows[0].max()}, total.detach())

    recorded = Recorded(accumulate)
    batches = [
        Batch((torch.randn(size, 8, device="cuda"), kind), torch.rand((), device="cuda"))
        for _ in range(5)
        for size, kind in ((3, 1), (4, 1), (4, 2))
    ]
    expected, gradients = [accumulate(batch) for batch in batches], [weight.grad for weight in layers.parameters()]
    layers.zero_grad(set_to_none=True)
    python_calls.clear()
    found = [recorded(batch) for batch in batches]  # all of them kept: no replay overwrites an earlier one's outputs
    assert len(python_calls) == 3 * 3  # once as it is, once measured, once recorded
    for ours, other in zip(found, expected, strict=True):
        assert torch.equal(ours.total, other.total)
        assert torch.equal(ours.numbers["largest"], other.numbers["largest"])
    for weight, gradient in zip(layers.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def test_what_keeps_the_gpu_busy_is_not_recorded() -> None:
    python_calls = []

    def multiply(left: Tensor) -> Tensor:
        python_calls.append(left.shape)
        return left @ left @ left

    recorded, matrix = Recorded(multiply), torch.randn(8192, 8192, device="cuda")
    for _ in range(4):
        recorded(matrix)
    assert len(python_calls) == 4


def test_weights_that_moved_are_read_anew_under_autocast() -> None:
    layer = nn.Linear(8, 8).cuda()
    recorded, rows = Recorded(layer), torch.randn(4, 8, device="cuda")
    with torch.no_grad():
        for step in range(6):
            with torch.autocast("cuda", torch.bfloat16):
                expected = layer(rows)
                assert torch.equal(recorded(rows), expected), step
            layer.weight.add_(1.0)
