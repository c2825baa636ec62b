"""One PPO cycle: k iterations of rollouts (phase 1) and updates (phase 2), with a checkpoint after each."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator

from components import paths
from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params
from components.core.kl import next_kl_coef
from components.core.stats import masked_mean, masked_sum
from components.measurement import Yardsticks
from components.ppo import checkpoint
from components.ppo.actor_critic import ActorCritic
from components.ppo.checkpoint import Progress
from components.ppo.rollouts import Rollouts, prompts_of_iteration, roll_out
from components.ppo.update import Statistics, update

logger = logging.getLogger("proximal")
CurveRow = dict[str, float]


def make_optimizer(model: ActorCritic, params: Params) -> torch.optim.Optimizer:
    """AdamW over both models, each with its own learning rate; the order of parameters is the model's own."""
    groups = [
        {"params": list(model.policy.parameters()), "lr": params.ppo.learning_rate},
        {"params": list(model.value_model.parameters()), "lr": params.ppo.value_learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=params.ppo.weight_decay, fused=True)


def run_cycle(
    accelerator: Accelerator,
    params: Params,
    cycle: int,
    start: Path,
    yardsticks: Yardsticks,
    prompts: list[list[int]],
    work: Path,
    on_iteration: Callable[[CurveRow], None],
) -> tuple[ActorCritic, torch.optim.Optimizer, Progress, list[CurveRow]]:
    """Take the policy of the last cycle through this cycle's iterations.

    Args:
        start: the folder of the stage before: artifacts/sft for the first cycle, the last cycle's folder after it.
        work: where the checkpoint of the last finished iteration lies, if the cycle was interrupted.
        on_iteration: called with the curve's row after every iteration.
    """
    resumed = work if (work / "state").exists() else None
    source = resumed or start
    if (source / "state").exists():
        model = checkpoint.load_model(source / "policy", source / "value_model")
        progress = checkpoint.load_progress(source)
    else:
        model = checkpoint.load_model(source / "policy", paths.REWARD_MODEL / "model")
        progress = Progress(iteration=0, kl_coef=params.ppo.kl_coef)
    optimizer = make_optimizer(model, params)
    if (source / "state").exists():
        checkpoint.load_optimizer(source, model, optimizer)
    curve: list[CurveRow] = list(read_json(work / "curve.json")) if resumed else []
    if resumed:
        logger.info("ppo: cycle %d goes on after iteration %d", cycle, progress.iteration)

    prepared, optimizer = accelerator.prepare(model, optimizer)
    end = cycle * params.ppo.iterations_per_cycle
    while progress.iteration < end:
        started = time.monotonic()
        batch = prompts_of_iteration(
            prompts, params.ppo.rollouts_per_iteration, progress.iteration, params.seed
        )
        rollouts = roll_out(accelerator, model, yardsticks, batch, params, progress.iteration)
        rolled_out = time.monotonic()
        statistics = update(
            accelerator,
            prepared,
            optimizer,
            rollouts,
            progress.kl_coef,
            params.ppo,
            params.seed,
            progress.iteration,
        )
        row = _curve_row(cycle, progress, rollouts, statistics)
        curve.append(row)
        progress = _next_progress(progress, row, params)
        if accelerator.is_main_process:
            logger.info(
                "ppo: cycle %d, iteration %d of %d, reward %+.3f, kl %.2f nats, entropy %.2f, "
                "%.1f s rollouts, %.1f s updates",
                *(cycle, progress.iteration, end, row["reward"], row["kl"], row["entropy"]),
                *(rolled_out - started, time.monotonic() - rolled_out),
            )
            on_iteration(row)
            with atomic_folder(work) as folder:
                checkpoint.save(folder, model, optimizer, yardsticks.codec, progress)
                write_json(folder / "curve.json", curve)
        accelerator.wait_for_everyone()
    return model, optimizer, progress, curve


def _next_progress(progress: Progress, row: CurveRow, params: Params) -> Progress:
    settings = params.ppo
    kl_coef = progress.kl_coef
    if settings.kl_control == "adaptive":
        kl_coef = next_kl_coef(
            kl_coef,
            row["kl"],
            target_kl=settings.target_kl_nats_per_sequence,
            horizon=settings.kl_horizon_rollouts,
            batch_size=settings.rollouts_per_iteration,
        )
    return Progress(progress.iteration + 1, kl_coef)


def _curve_row(cycle: int, progress: Progress, rollouts: Rollouts, statistics: Statistics) -> CurveRow:
    """One iteration in numbers: the rollouts' means, then the update's statistics."""
    mask = rollouts.sequences.response_mask
    return {
        "cycle": cycle,
        "iteration": progress.iteration + 1,
        "reward": float(rollouts.raw_scores.mean()),
        "score": float(rollouts.scores.mean()),
        "kl": float(masked_sum(rollouts.kl, mask, dim=1).mean()),
        "kl_coef": progress.kl_coef,
        "entropy": float(masked_mean(rollouts.entropy, mask)),
        "response_tokens": float(mask.sum(dim=1).float().mean()),
        **{name: value for name, value in statistics.items() if name != "entropy"},
    }


def clear_work(work: Path) -> None:
    """Remove the iteration checkpoint of a cycle whose outputs are complete."""
    shutil.rmtree(work, ignore_errors=True)
