"""One DPO cycle: k iterations of optimiser steps on comparisons, with a checkpoint after each."""

from __future__ import annotations

import logging
import time

import torch
from accelerate import Accelerator

from components.alignment.dpo.reference import reference_logprobs
from components.alignment.dpo.update import Updater
from components.alignment.method import (
    CurveRow,
    Cycle,
    load_iteration,
    rows_of_iteration,
    save_iteration,
    warm_up_factor,
)
from components.artifacts import atomic_folder, read_json, write_json
from components.config import Dpo, Params
from components.measuring.measure import Yardsticks, progress
from components.models.loading import load_policy, save_policy
from components.passes.sequences import comparison_pairs
from components.training.optimizer_state import load_optimizer, save_optimizer

logger = logging.getLogger("proximal")


def make_optimizer(policy: torch.nn.Module, settings: Dpo) -> torch.optim.Optimizer:
    """AdamW over the whole policy."""
    return torch.optim.AdamW(policy.parameters(), weight_decay=settings.weight_decay, fused=True)


def run_cycle(accelerator: Accelerator, params: Params, cycle: Cycle, yardsticks: Yardsticks) -> None:
    """Take the policy of the last cycle through this cycle's iterations; see components.alignment.method.

    The reference is the SFT policy in every cycle. Logprobs are those of the policies as they are sampled from and
    measured: at measurement.temperature. Nothing that is trained on is sampled, so sampled_tokens is 0; the curve's
    figures of sampled responses come from the policy after the iteration's steps, on the same prompts every time.
    """
    settings, work, temperature = params.dpo, cycle.work, params.measurement.temperature
    resumed = work if (work / "state").exists() else None
    source = resumed or cycle.start
    policy = load_policy(source / "policy").to(accelerator.device)
    optimizer = make_optimizer(policy, settings)
    iteration = 0
    if (source / "state").exists():
        iteration = load_iteration(source)
        load_optimizer(source / "state" / "optimizer.safetensors", policy, optimizer)
    curve: list[CurveRow] = list(read_json(work / "curve.json")) if resumed else []
    if resumed:
        logger.info("dpo: cycle %d goes on after iteration %d", cycle.number, iteration)

    pairs = comparison_pairs(cycle.comparisons, yardsticks.codec)
    ids = [row.id for row in cycle.comparisons]
    end = cycle.number * settings.iterations_per_cycle
    used = {
        number: rows_of_iteration(
            range(len(ids)), settings.comparisons_per_iteration, number, params.seed, "dpo/comparisons"
        )
        for number in range(end - settings.iterations_per_cycle, end)
    }
    ref_logprobs = reference_logprobs(
        accelerator,
        yardsticks.reference,
        pairs,
        used.values(),
        temperature=temperature,
        microbatch_size=settings.microbatch_size,
    )
    watched = rows_of_iteration(cycle.prompts, settings.progress_prompts, 0, params.seed, "dpo/progress")
    prepared, optimizer = accelerator.prepare(policy, optimizer)
    updater = Updater(accelerator, prepared, optimizer, pairs, ref_logprobs, ids, settings, temperature=temperature)
    while iteration < end:
        started = time.monotonic()
        factor = warm_up_factor(settings.learning_rate_warmup_iterations, iteration)
        for group in optimizer.param_groups:
            group["lr"] = factor * settings.learning_rate
        rows = torch.tensor(used[iteration])
        statistics = updater.update(rows, iteration)
        iteration += 1
        if accelerator.is_main_process:
            updated = time.monotonic()
            row = {
                "cycle": cycle.number,
                "iteration": iteration,
                **progress(policy, yardsticks, params, watched, "dpo/progress"),
                "sampled_tokens": 0,
                **statistics,
            }
            curve.append(row)
            logger.info(
                "dpo: cycle %d, iteration %d of %d, loss %.3f, accuracy %.2f, reward %+.3f, kl %.2f nats, "
                "%.1f s steps, %.1f s samples",
                *(cycle.number, iteration, end, row["loss"], row["accuracy"], row["reward"], row["kl"]),
                *(updated - started, time.monotonic() - updated),
            )
            cycle.report(row)
            with atomic_folder(work) as folder:
                save_policy(policy, yardsticks.codec, folder / "policy")
                save_optimizer(folder / "state" / "optimizer.safetensors", policy, optimizer)
                save_iteration(folder, iteration)
                write_json(folder / "curve.json", curve)
        accelerator.wait_for_everyone()
