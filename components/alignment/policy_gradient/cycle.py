"""One PPO cycle: k iterations of rollouts (phase 1) and updates (phase 2), with a checkpoint after each."""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator

from components import paths
from components.alignment.method import CurveRow, Cycle, rows_of_iteration
from components.alignment.policy_gradient import checkpoint
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.checkpoint import Progress
from components.alignment.policy_gradient.credit import Credit, assign_credit
from components.alignment.policy_gradient.rollouts import Collector, Rollouts, true_scores
from components.alignment.policy_gradient.update import Statistics, Updater
from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params, PolicyGradientMethod, Ppo
from components.core.ilql import polyak
from components.core.kl import kl_estimate, next_kl_coef
from components.core.stats import RunningMoments, masked_mean, masked_sum
from components.measuring.measure import Yardsticks
from components.models.loading import first_member, load_policy
from components.training.optimizer_state import load_optimizer

logger = logging.getLogger("proximal")


def make_optimizer(model: ActorCritic, settings: PolicyGradientMethod) -> torch.optim.Optimizer:
    """AdamW over both models, each with its own learning rate; the order of parameters is the model's own."""
    groups = [list(model.policy.parameters())]
    if model.value_model is not None:
        groups.append(list(model.value_model.parameters()))
    return torch.optim.AdamW([{"params": group} for group in groups], weight_decay=settings.weight_decay, fused=True)


def learning_rates(settings: PolicyGradientMethod, iteration: int) -> tuple[float, float]:
    """The learning rates of policy and value model in an iteration, counted from 0 over all cycles."""
    factor = 1.0
    if iteration < settings.learning_rate_warmup_iterations:
        factor = (iteration + 1) / settings.learning_rate_warmup_iterations
    elif settings.learning_rate_decay_iterations is not None:
        left = settings.learning_rate_decay_iterations - iteration
        factor = max(0.0, left / (settings.learning_rate_decay_iterations - settings.learning_rate_warmup_iterations))
    if not settings.has_value_model:
        return factor * settings.learning_rate, 0.0
    critic = cast(Ppo, settings)
    still = iteration < critic.value_warmup_iterations
    return 0.0 if still else factor * settings.learning_rate, factor * critic.value_learning_rate


def run_cycle(accelerator: Accelerator, params: Params, cycle: Cycle, yardsticks: Yardsticks) -> None:
    """Take the policy of the last cycle through this cycle's iterations; see components.alignment.method."""
    settings, work = cast(PolicyGradientMethod, params.alignment), cycle.work
    resumed = work if (work / "state").exists() else None
    source = resumed or cycle.start
    goes_on = (source / "state").exists()
    values = source / "state" / "value_model" if goes_on else first_member(paths.REWARD_MODEL / "model")
    model = checkpoint.load_model(source / "policy", values if settings.has_value_model else None)
    model = model.to(accelerator.device)
    reference = _reference(settings, yardsticks, source, model, starts=not resumed)
    progress = Progress(iteration=0, kl_coef=settings.kl_coef, score_moments=RunningMoments())
    optimizer = make_optimizer(model, settings)
    if goes_on:
        progress = checkpoint.load_progress(source)
        load_optimizer(source / "state" / "optimizer.safetensors", model, optimizer)
    curve: list[CurveRow] = list(read_json(work / "curve.json")) if resumed else []
    if resumed:
        logger.info("%s: cycle %d goes on after iteration %d", params.method, cycle.number, progress.iteration)

    texts = [row.prompt for row in cycle.prompts]
    prompts = list(zip(texts, yardsticks.codec.encode_prompts(texts), strict=True))
    moved = None if reference is yardsticks.reference else reference
    prepared, optimizer = accelerator.prepare(model, optimizer)
    collector = Collector(accelerator, model, reference, yardsticks, params)
    updater = Updater(accelerator, prepared, optimizer, settings, params.seed)
    end = cycle.number * settings.iterations_per_cycle
    while progress.iteration < end:
        started = time.monotonic()
        iteration, kl_coef = progress.iteration, progress.kl_coef
        groups = settings.rollouts_per_iteration // settings.responses_per_prompt
        asked = rows_of_iteration(prompts, groups, iteration, params.seed, "ppo/prompts")
        batch = [prompt for prompt in asked for _ in range(settings.responses_per_prompt)]
        tokens = [prompt for _, prompt in batch]
        rollouts = collector.roll_out(tokens, iteration)
        if settings.reward == "rubric":
            scores = true_scores(rollouts, [text for text, _ in batch], yardsticks.codec, params)
            rollouts = rollouts._replace(scores=scores)
        credit, moments = assign_credit(rollouts, kl_coef, progress.score_moments, settings)
        rolled_out = time.monotonic()
        for group, rate in zip(optimizer.param_groups, learning_rates(settings, iteration), strict=False):
            group["lr"] = rate
        statistics = updater.update(rollouts, credit, kl_coef, iteration)
        row = _curve_row(cycle.number, progress, rollouts, credit, statistics)
        curve.append(row)
        progress = Progress(iteration + 1, _next_kl_coef(kl_coef, row["kl"], settings), moments)
        if accelerator.is_main_process:
            logger.info(
                "%s: cycle %d, iteration %d of %d, reward %+.3f, kl %.2f nats, entropy %.2f, "
                "%.1f s rollouts, %.1f s updates",
                *(params.method, cycle.number, progress.iteration, end, row["reward"], row["kl"], row["entropy"]),
                *(rolled_out - started, time.monotonic() - rolled_out),
            )
            cycle.report(row)
            with atomic_folder(work) as folder:
                checkpoint.save(folder, model, moved, optimizer, yardsticks.codec, progress)
                write_json(folder / "curve.json", curve)
        accelerator.wait_for_everyone()


def _reference(
    settings: PolicyGradientMethod, yardsticks: Yardsticks, source: Path, model: ActorCritic, *, starts: bool
) -> Any:
    """The policy that KL is measured from: the SFT policy, or what has become of it.

    Args:
        starts: whether the cycle starts, which is when a reference that moves does so.
    """
    if settings.reference == "fixed":
        return yardsticks.reference
    stored = source / "state" / "reference"
    # A state without its reference is a damaged one, which `load_policy` refuses: the SFT policy is only its beginning.
    goes_on = (source / "state").exists()
    reference = load_policy(stored) if goes_on else copy.deepcopy(yardsticks.reference)
    reference = reference.to(next(model.parameters()).device)
    if starts:
        weight = 1.0 if settings.reference == "refreshed" else settings.reference_average_weight
        averaged = polyak(list(reference.parameters()), list(model.policy.parameters()), weight)
        with torch.no_grad():
            for parameter, value in zip(reference.parameters(), averaged, strict=True):
                parameter.copy_(value)
    return reference


def _next_kl_coef(kl_coef: float, kl: float, settings: PolicyGradientMethod) -> float:
    if settings.kl_control == "fixed":
        return kl_coef
    return next_kl_coef(
        kl_coef,
        kl,
        target_kl=settings.target_kl_nats_per_sequence,
        horizon=settings.kl_horizon_rollouts,
        batch_size=settings.rollouts_per_iteration,
    )


def _curve_row(cycle: int, progress: Progress, rollouts: Rollouts, credit: Credit, statistics: Statistics) -> CurveRow:
    """One iteration in numbers: the rollouts' means, then the update's statistics."""
    mask = rollouts.sequences.response_mask
    kl = kl_estimate(rollouts.old_logprobs, rollouts.ref_logprobs, "k1")
    return {
        "cycle": cycle,
        "iteration": progress.iteration + 1,
        "reward": float(rollouts.scores.mean()),
        "shaped_score": float(credit.scores.mean()),
        "kl": float(masked_sum(kl, mask, dim=1).mean()),
        "kl_coef": progress.kl_coef,
        "entropy": float(masked_mean(rollouts.entropy, mask)),
        "response_tokens": float(mask.sum(dim=1).float().mean()),
        "ended": float(rollouts.ended.float().mean()),
        "sampled_tokens": int(mask.sum()),
        **{name: value for name, value in statistics.items() if name != "entropy"},
    }
