"""Which processes compute."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.config.base import Count, Section


class CpuThreads(Section):
    """Threads of each stage's processes. They are part of the result (sums split by them) and so belong to params."""

    sft: Count
    reward_model: Count
    judge: Count
    alignment: Count
    evaluation: Count
    promotion: Count


class Compute(Section):
    """Which processes compute, and on how many threads each."""

    accelerate_config: Annotated[str, Field(min_length=1)]
    cpu_threads: CpuThreads
    gather_for_generation: bool  # with FSDP: a whole policy in each process while it answers; else a layer at a time
    reshard_checkpoints: bool  # whether interrupted work of another number of processes is gone on with
