"""The Accelerate border: devices, processes, and the settings that make a run on the CPU repeatable."""

from __future__ import annotations

import ctypes
import os
import sys

import torch
from accelerate import Accelerator

from components.errors import EnvironmentFault


def start_accelerator() -> Accelerator:
    """An Accelerator as `components.launch` configured it through the environment.

    Raises:
        EnvironmentFault: it does not see all processes, so that each would train on its own.
    """
    torch.use_deterministic_algorithms(True)
    # An aid to find reads of memory that nobody wrote, which costs a write of every tensor before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()
    accelerator = Accelerator()
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise EnvironmentFault(
            "the processes do not find each other",
            where="compute.accelerate_config",
            expected=f"{os.environ['WORLD_SIZE']} processes",
            found=str(accelerator.num_processes),
            do="see that use_cpu and distributed_type fit this machine",
        )
    return accelerator


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free for the next ones, which are of the same sizes.

    By default large blocks go back to the kernel, and every step asks it for the same pages again; see infra/decisions.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # their numbers in malloc.h
        mallopt(mmap_threshold, 32 << 20)  # the most it takes
        mallopt(trim_threshold, (1 << 31) - 1)
        mallopt(top_pad, 64 << 20)
