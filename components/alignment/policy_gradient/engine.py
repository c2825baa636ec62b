"""Which engine samples a cycle's rollouts, as params say it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from components.alignment.method import Job
from components.engines.base import Engine
from components.training.sharding import gathered
from components.work_folder import engine_folder


def engine_for(job: Job, policy: Any, frame: Any, prompts: list[list[int]], temperature: float) -> Engine | None:
    """The engine of params, closed with the job; None for our own.

    Args:
        policy: the one in training.
        frame: see `components.training.sharding.gathered`.
        prompts: of the cycle, as token ids.
    """
    if job.shared.generation.engine == "own":
        return None
    from components.engines.vllm import VllmEngine  # what it needs is imported where it is used

    def whole() -> AbstractContextManager[Any]:
        return gathered(job.accelerator, policy, frame, everywhere=True)

    engine = VllmEngine(
        *(job.shared.generation, job.accelerator, whole, job.frozen.codec, job.shared, prompts),
        temperature=temperature,
        folder=engine_folder(job.cycle.work),
        checks=job.checks,
    )
    job.resources.callback(engine.close)
    return engine
