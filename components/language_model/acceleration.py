"""The Accelerate border: devices, processes, and the settings that make a run on the CPU repeatable."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from components.config import Params


def start_accelerator(params: Params) -> Accelerator:
    """An Accelerator as `components.launch` configured it through the environment."""
    torch.set_num_threads(params.compute.cpu_threads)
    torch.use_deterministic_algorithms(True)
    return Accelerator()
