"""How long stages compute, from their tokens: a first guess, to tell minutes from hours and days.

Forward 2 operations a weight and token, backward as much again for what flows back and once more for the gradients of
weights, which a frozen base has none of (Kaplan et al. 2020, arXiv:2001.08361, section 2.1); attention's own products
and starting, loading and writing are left out. Sampling reads all weights for every token of a batch.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from components.config import Params
from components.config.accelerate import AccelerateConfig
from components.interface.plan.device import Device, Speed
from components.interface.plan.roles import Phase
from components.interface.plan.tokens import Tokens

_SHARE = 0.35  # of matrix products' own speed that training comes to on a GPU: an assumption, nothing was measured
_SHARE_OF_CPU = 0.4  # measured: infra/decisions/0013-plan.md
_CALIBRATION_SECONDS = 0.3


class Seconds(NamedTuple):
    """What a stage computes for, by what it does, in seconds."""

    stage: str
    sampling: float
    passing: float
    training: float

    @property
    def total(self) -> float:
        return self.sampling + self.passing + self.training


def seconds_of(
    tokens: list[Tokens], phase: Phase, params: Params, config: AccelerateConfig, device: Device, speed: Speed | None
) -> list[Seconds]:
    """Of every stage; none where the device's speed is not known.

    Args:
        phase: one whose parameters are the policy's.
        speed: of one thread of a CPU, or of a GPU.
    """
    if speed is None:
        return []
    share = _SHARE if device.is_gpu else _SHARE_OF_CPU
    weights = phase.parameters
    of_training = 4 if params.language_model.adapter is not None else 6
    found = []
    for each in tokens:
        stage = each.stage.split()[0]
        workers = config.num_processes
        if not device.is_gpu:
            workers *= getattr(params.compute.cpu_threads, stage, 1)
        rate = share * speed.flops * workers
        bytes_read = weights * (4 if params.language_model.dtype == "float32" else 2)
        steps = each.sampled / params.measurement.batch_size
        reading = steps * bytes_read / (speed.bandwidth * (config.num_processes if device.is_gpu else 1))
        found.append(
            Seconds(
                each.stage,
                max(2 * weights * each.sampled / rate, reading),
                2 * weights * each.passed / rate,
                of_training * weights * each.trained / rate,
            )
        )
    return found


def speed_of(device: Device, config: AccelerateConfig) -> Speed | None:
    """A GPU's by its data sheet; of this machine what one thread does in processor time, measured here and now."""
    if device.is_gpu:
        return device.speed
    dtype = torch.bfloat16 if config.mixed_precision == "bf16" else torch.float32
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left, right = torch.ones(1024, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        left @ right  # makes its kernel
        rounds, begun = 0, time.process_time()
        while time.process_time() - begun < _CALIBRATION_SECONDS:
            left @ right
            rounds += 1
        flops = rounds * 2 * 1024**3 / (time.process_time() - begun)
        large, rounds, begun = torch.ones(16 << 20), 0, time.process_time()
        while time.process_time() - begun < _CALIBRATION_SECONDS:
            large.sum()
            rounds += 1
        return Speed(flops, rounds * large.nbytes / (time.process_time() - begun))
    finally:
        torch.set_num_threads(before)
