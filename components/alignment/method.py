"""What every method of alignment gets, and what it leaves behind: one cycle, from one policy to the next.

A method is a module with a function

    run_cycle(accelerator, params, cycle, yardsticks) -> None

that goes on from `cycle.work` where a checkpoint lies there, else from `cycle.start`, and leaves in `cycle.work` the
policy (policy/), what the next cycle needs to go on (state/), and one row an iteration (curve.json).

Every row has cycle, iteration, reward, kl (nats per sequence, k1), entropy (nats per token), response_tokens and ended
of responses sampled in the iteration, and what it cost: sampled_tokens and trained_tokens. What else a method has to
tell stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from components.artifacts import read_json, reading, write_json
from components.data.rows import Comparison, Prompt
from components.seeding import generator

CurveRow = dict[str, float]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Cycle:
    """One cycle as every method gets it.

    Args:
        number: from 1.
        start: the folder of the stage before: artifacts/sft for the first cycle, the last cycle's folder after it.
            It has policy/, and after the first cycle state/.
        work: holds the checkpoint of the last finished iteration, written with `artifacts.atomic_folder`.
        prompts: the training prompts.
        comparisons: those that the reward model was trained on.
        report: called by the first process with the curve's row after every iteration.
    """

    number: int
    start: Path
    work: Path
    prompts: list[Prompt]
    comparisons: list[Comparison]
    report: Callable[[CurveRow], None]


def rows_of_iteration(rows: Sequence[Item], count: int, iteration: int, seed: int, stream: str) -> list[Item]:
    """The rows that an iteration works on: in a shuffled order, epoch after epoch.

    They follow from (seed, iteration) alone, so an interrupted cycle needs no generator state to go on.

    Args:
        iteration: counted from 0 over all cycles.
        stream: names the random numbers, e.g. "ppo/prompts".
    """
    chosen: list[Item] = []
    position = iteration * count
    while len(chosen) < count:
        epoch, offset = divmod(position, len(rows))
        order = torch.randperm(len(rows), generator=generator(seed, stream, epoch)).tolist()
        taken = order[offset : offset + count - len(chosen)]
        chosen += [rows[index] for index in taken]
        position += len(taken)
    return chosen


def warm_up_factor(warmup_iterations: int, iteration: int) -> float:
    """What a learning rate is multiplied by in an iteration, counted from 0: a linear warm-up, then 1."""
    return min(1.0, (iteration + 1) / warmup_iterations) if warmup_iterations else 1.0


def save_iteration(folder: Path, iteration: int) -> None:
    """Note below state/ how many iterations are done, over all cycles, for a method that needs to know no more."""
    write_json(folder / "state" / "progress.json", {"iteration": iteration})


def load_iteration(folder: Path) -> int:
    """What `save_iteration` noted.

    Raises:
        ArtifactError: absent, corrupt, or of another method.
    """
    path = folder / "state" / "progress.json"
    with reading("progress", path, "iteration, a number"):
        iteration = read_json(path)["iteration"]
        if not isinstance(iteration, int):
            raise TypeError(f"iteration: {iteration!r}")
        return iteration
