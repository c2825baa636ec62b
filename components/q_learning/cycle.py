"""One cycle of Q-learning: k iterations of optimiser steps on comparisons, with a checkpoint after each."""

from __future__ import annotations

import dataclasses
import logging
import time

from accelerate import Accelerator
from torch import nn

from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params, QLearning
from components.measurement import Yardsticks, means, measure
from components.method import CurveRow, Cycle, rows_of_iteration
from components.q_learning import checkpoint
from components.q_learning.dataset import score_comparisons
from components.q_learning.update import update

logger = logging.getLogger("proximal")
_MEASURED = ("reward", "kl", "entropy", "response_tokens", "ended")


def learning_rates(settings: QLearning, iteration: int) -> tuple[float, float]:
    """The learning rates of policy and heads in an iteration, counted from 0 over all cycles."""
    warmup = settings.learning_rate_warmup_iterations
    factor = (iteration + 1) / warmup if iteration < warmup else 1.0
    return factor * settings.learning_rate, factor * settings.head_learning_rate


def run_cycle(accelerator: Accelerator, params: Params, cycle: Cycle, yardsticks: Yardsticks) -> None:
    """Take the policy of the last cycle through this cycle's iterations; see components.method."""
    settings, work = params.q_learning, cycle.work
    resumed = (work / "state").exists()
    now = checkpoint.start(work if resumed else cycle.start, settings, params.seed, accelerator.device)
    curve: list[CurveRow] = list(read_json(work / "curve.json")) if resumed else []
    if resumed:
        logger.info("%s: cycle %d goes on after iteration %d", params.method, cycle.number, now.iteration)

    data = score_comparisons(accelerator, yardsticks, params, cycle.comparisons)
    prepared, optimizer = accelerator.prepare(now.learner, now.optimizer)
    end = cycle.number * settings.iterations_per_cycle
    while now.iteration < end:
        started, iteration = time.monotonic(), now.iteration
        rows = list(range(len(cycle.comparisons)))
        comparisons = rows_of_iteration(
            rows, settings.comparisons_per_iteration, iteration, params.seed, "q_learning/comparisons"
        )
        for group, rate in zip(optimizer.param_groups, learning_rates(settings, iteration), strict=True):
            group["lr"] = rate
        statistics = update(
            accelerator, prepared, now.guided.target_q_heads, optimizer, data, comparisons, settings, iteration
        )
        now = dataclasses.replace(now, iteration=iteration + 1)
        if accelerator.is_main_process:
            progress = _progress(now.guided, yardsticks, params, cycle, iteration)
            row: CurveRow = {"cycle": cycle.number, "iteration": now.iteration, **progress, **statistics}
            curve.append(row)
            logger.info(
                "%s: cycle %d, iteration %d of %d, loss %.3f, accuracy %.2f, reward %+.3f, kl %.2f nats, %.1f s",
                *(params.method, cycle.number, now.iteration, end, row["loss"], row["accuracy"], row["reward"]),
                *(row["kl"], time.monotonic() - started),
            )
            cycle.report(row)
            with atomic_folder(work) as folder:
                checkpoint.save(folder, now, yardsticks.codec)
                write_json(folder / "curve.json", curve)
        accelerator.wait_for_everyone()


def _progress(
    guided: nn.Module, yardsticks: Yardsticks, params: Params, cycle: Cycle, iteration: int
) -> dict[str, float]:
    """Where the policy is: means of responses to a few training prompts, sampled as it decodes."""
    prompts = rows_of_iteration(
        cycle.prompts, params.q_learning.progress_prompts, iteration, params.seed, "q_learning/prompts"
    )
    records = measure(guided, yardsticks, params, prompts, 1, f"q_learning/progress/{iteration}")
    found = means(records)
    sampled_tokens = sum(record["response_tokens"] for record in records)
    return {name: found[name] for name in _MEASURED} | {"sampled_tokens": sampled_tokens}
