"""The Accelerate border: devices, processes, and the settings that make a run on the CPU repeatable."""

from __future__ import annotations

import torch
from accelerate import Accelerator


def start_accelerator() -> Accelerator:
    """An Accelerator as `components.launch` configured it through the environment."""
    torch.use_deterministic_algorithms(True)
    return Accelerator()
