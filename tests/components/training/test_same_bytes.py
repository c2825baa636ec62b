"""The environment of a stage makes float32 products the same wherever their operands lie in memory."""

from __future__ import annotations

import os
import subprocess
import sys

from components.config.accelerate import torch_environment

# Products with each operand moved by a few floats, against the one whose operands begin at a multiple of 64 bytes.
PRODUCTS = """
import torch
torch.manual_seed(0)

def moved(tensor, floats):
    room = torch.empty(tensor.numel() + 64)
    begin = -(room.data_ptr() // 4) % 16 + floats
    return room[begin : begin + tensor.numel()].view_as(tensor).copy_(tensor)

for rows, inner, columns in [(1, 16, 1), (3, 16, 16), (7, 64, 96), (40, 96, 256), (128, 512, 512), (33, 100, 77)]:
    inputs, weights = torch.randn(rows, inner), torch.randn(columns, inner)
    expected = moved(inputs, 0) @ moved(weights, 0).T
    for floats in (1, 2, 4, 7, 8):
        assert torch.equal(inputs @ moved(weights, floats).T, expected), (rows, inner, columns, floats)
        assert torch.equal(moved(inputs, floats) @ weights.T, expected), (rows, inner, columns, floats)
"""


def test_products_do_not_depend_on_where_their_operands_lie() -> None:
    environment = {**os.environ, **torch_environment(cpu_threads=1)}
    subprocess.run([sys.executable, "-c", PRODUCTS], env=environment, check=True)
