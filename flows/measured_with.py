"""What policies are measured with, the SFT policy and the scorers, brought up to date before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.futures import PrefectFuture

from flows.graph import Stage
from flows.operation import Operations
from flows.stages import run_stage

MEASURED_WITH = ("sft", "reward_model", "judge")  # each is made of what comes before it


def needed_to_measure(graph: Sequence[Stage]) -> list[Stage]:
    """The stages whose models measure, and all before them."""
    needed = set(MEASURED_WITH)
    for stage in reversed(graph):
        if stage.name in needed:
            needed.update(stage.upstream)
    return [stage for stage in graph if stage.name in needed]


def submit(
    stages: Sequence[Stage], folder: Path, variables: dict[str, str], operations: Operations
) -> dict[str, PrefectFuture[Any]]:
    """Submit them to the flow that asks, by name."""
    submitted: dict[str, PrefectFuture[Any]] = {}
    for stage in stages:
        upstream = [submitted[name] for name in stage.upstream]
        submitted[stage.name] = run_stage.submit(stage, folder, variables, upstream, operations.of(stage.name))
    return submitted
