"""One cycle of Q-learning: k iterations of optimiser steps on comparisons, with a checkpoint after each."""

from __future__ import annotations

import dataclasses
import logging
import time

from accelerate import Accelerator

from components.alignment.method import CurveRow, Cycle, rows_of_iteration, warm_up_factor
from components.alignment.q_learning import checkpoint
from components.alignment.q_learning.dataset import score_comparisons
from components.alignment.q_learning.update import update
from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params
from components.measuring.measure import Yardsticks, progress

logger = logging.getLogger("proximal")


def run_cycle(accelerator: Accelerator, params: Params, cycle: Cycle, yardsticks: Yardsticks) -> None:
    """Take the policy of the last cycle through this cycle's iterations; see components.alignment.method.

    The curve's figures of sampled responses come from the policy as it decodes after the iteration's steps, on the
    same prompts every time; nothing that is trained on is sampled.
    """
    settings, work = params.q_learning, cycle.work
    resumed = (work / "state").exists()
    now = checkpoint.start(work if resumed else cycle.start, settings, params.seed, accelerator.device)
    curve: list[CurveRow] = list(read_json(work / "curve.json")) if resumed else []
    if resumed:
        logger.info("%s: cycle %d goes on after iteration %d", params.method, cycle.number, now.iteration)

    data = score_comparisons(accelerator, yardsticks, params, cycle.comparisons)
    watched = rows_of_iteration(cycle.prompts, settings.progress_prompts, 0, params.seed, "q_learning/progress")
    prepared, optimizer = accelerator.prepare(now.learner, now.optimizer)
    end = cycle.number * settings.iterations_per_cycle
    while now.iteration < end:
        started, iteration = time.monotonic(), now.iteration
        comparisons = rows_of_iteration(
            range(len(cycle.comparisons)),
            settings.comparisons_per_iteration,
            iteration,
            params.seed,
            "q_learning/comparisons",
        )
        factor = warm_up_factor(settings.learning_rate_warmup_iterations, iteration)
        rates = (factor * settings.learning_rate, factor * settings.head_learning_rate)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        statistics = update(
            accelerator, prepared, now.guided.target_q_heads, optimizer, data, comparisons, settings, iteration
        )
        now = dataclasses.replace(now, iteration=iteration + 1)
        if accelerator.is_main_process:
            row: CurveRow = {
                "cycle": cycle.number,
                "iteration": now.iteration,
                **progress(now.guided, yardsticks, params, watched, "q_learning/progress"),
                "sampled_tokens": 0,
                **statistics,
            }
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
