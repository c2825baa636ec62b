"""Phase 2: the weights move by the clipped policy loss, the value loss and the entropy term, in one objective."""

from __future__ import annotations

import contextlib
import math

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.config import Ppo
from components.core.kl import kl_estimate
from components.core.losses import aggregate, policy_loss, value_loss
from components.core.stats import masked_sum, masked_var
from components.errors import TrainingError
from components.language_model.sequences import microbatches
from components.ppo.actor_critic import ActorCritic
from components.ppo.credit import Credit
from components.ppo.rollouts import Rollouts
from components.profile import span
from components.seeding import generator

Statistics = dict[str, float]


@span("updates")
def update(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    credit: Credit,
    kl_coef: float,
    settings: Ppo,
    seed: int,
    iteration: int,
) -> Statistics:
    """Several epochs of minibatch steps on one batch of rollouts; the model changes in place.

    Stops early once a step finds the policy more than max_update_kl_nats_per_token away from the rollouts' policy.

    Returns:
        Means over all steps: policy_loss, value_loss, entropy, clip_fraction, value_clip_fraction, approx_kl (old to
        new policy, 0.5 * squared log-ratio), ratio_max, gradient norms; of the batch explained_variance (with a
        value model); and the number of steps, and of trained_tokens (prompts and responses, as often as they went
        through a step).
    Raises:
        TrainingError: a loss or ratio that is not finite; the rows are named.
    """
    statistics = {"explained_variance": _explained_variance(rollouts, credit)} if settings.has_value_model else {}
    mask = rollouts.sequences.response_mask
    steps: list[Statistics] = []
    trained_tokens = 0
    for epoch in range(settings.epochs):
        order = torch.randperm(len(mask), generator=generator(seed, "ppo", "minibatches", iteration, epoch))
        for rows in torch.chunk(order.to(mask.device), settings.minibatches):
            steps.append(_step(accelerator, model, optimizer, rollouts, credit, rows, kl_coef, settings, iteration))
            trained_tokens += int(rollouts.sequences.mask[rows].sum())
            if _moved_too_far(steps[-1], settings):
                break
        if _moved_too_far(steps[-1], settings):
            break
    for name in steps[0]:
        values = [step[name] for step in steps]
        statistics[name] = max(values) if name == "ratio_max" else sum(values) / len(values)
    return statistics | {"steps": len(steps), "trained_tokens": trained_tokens}


def _moved_too_far(step: Statistics, settings: Ppo) -> bool:
    limit = settings.max_update_kl_nats_per_token
    return limit is not None and step["approx_kl"] > limit


def _step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    credit: Credit,
    rows: Tensor,
    kl_coef: float,
    settings: Ppo,
    iteration: int,
) -> Statistics:
    """One optimiser step. Losses are means over all tokens (or sequences) of the minibatch, however it is cut up."""
    tokens = float(rollouts.sequences.response_mask[rows].sum())
    counted = tokens if settings.loss_aggregation == "token_mean" else float(len(rows))
    share = rows[accelerator.process_index :: accelerator.num_processes]
    parts = list(microbatches(rollouts.sequences.rows(share), settings.microbatch_size))
    sums: dict[str, Tensor] = {}
    ratio_max = torch.zeros((), device=credit.advantages.device)
    for number, (index, sequences) in enumerate(parts, start=1):
        chosen, width = share[index], sequences.response_tokens.shape[1]
        mask = sequences.response_mask

        def of(column: Tensor, chosen: Tensor = chosen, width: int = width) -> Tensor:
            return column[chosen, :width]

        last = number == len(parts)
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            new = model(sequences, settings.temperature)
            policy = policy_loss(
                new.logprobs,
                of(rollouts.old_logprobs),
                of(credit.advantages),
                mask,
                clip_low=settings.clip_range_low,
                clip_high=settings.clip_range_high,
                dual_clip=settings.dual_clip,
            )
            value = value_loss(
                new.values,
                of(rollouts.values),
                of(credit.returns),
                mask,
                value_clip_range=settings.value_clip_range,
            )
            per_token = {"policy_loss": policy.loss, "value_loss": value.loss, "entropy": new.entropy}
            if settings.kl_placement == "loss":
                per_token["kl_loss"] = kl_estimate(new.logprobs, of(rollouts.ref_logprobs), settings.kl_estimator)
            losses = {
                name: aggregate(term, mask, settings.loss_aggregation, counted) for name, term in per_token.items()
            }
            objective = losses["policy_loss"]
            if settings.entropy_coef > 0:  # with 0, its gradient is not computed in vain
                objective = objective - settings.entropy_coef * losses["entropy"]
            if settings.kl_placement == "loss":
                objective = objective + kl_coef * losses["kl_loss"]
            objective = objective + settings.value_loss_coef * losses["value_loss"]
            if not torch.isfinite(objective):
                of_rows = torch.stack([masked_sum(term.detach(), mask, dim=1) for term in per_token.values()])
                broken = chosen[~torch.isfinite(of_rows).all(dim=0)]
                named = broken if len(broken) else chosen  # finite rows can overflow together
                raise TrainingError(
                    "the PPO objective is not finite",
                    where=f"ppo, iteration {iteration + 1}, rollouts {named.tolist()[:8]}",
                    expected="a number",
                    found=", ".join(f"{name} {float(loss)}" for name, loss in losses.items()),
                    do="the last finished iteration is kept; lower ppo.learning_rate and run again",
                )
            # Data parallelism averages gradients over the processes; the loss is already a share of the whole mean.
            accelerator.backward(objective * accelerator.num_processes)
        log_ratio = (new.logprobs - of(rollouts.old_logprobs)).detach()
        measured = {
            **losses,
            "clip_fraction": masked_sum(policy.clipped.float(), mask) / tokens,
            "value_clip_fraction": masked_sum(value.clipped.float(), mask) / tokens,
            "approx_kl": masked_sum(0.5 * log_ratio.square(), mask) / tokens,
        }
        for name, term in measured.items():
            sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
        ratio_max = torch.maximum(ratio_max, torch.where(mask, policy.ratio, 0.0).max().detach())
    inner: ActorCritic = accelerator.unwrap_model(model)
    norms = {"policy_gradient_norm": _clip(inner.policy, settings.gradient_clip)}
    if inner.value_model is not None:
        norms["value_gradient_norm"] = _clip(inner.value_model, settings.gradient_clip)
    optimizer.step()
    optimizer.zero_grad()
    totals = accelerator.reduce(torch.stack(list(sums.values())), reduction="sum").tolist()
    ratio_max = accelerator.gather(ratio_max.reshape(1)).max()
    return {**dict(zip(sums, totals, strict=True)), **norms, "ratio_max": float(ratio_max)}


def _clip(module: nn.Module, limit: float) -> float:
    """Clip policy and value gradients apart: a large value error must not shrink the policy's step."""
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), limit))
    if not math.isfinite(norm):
        raise TrainingError(
            "a gradient is not finite",
            where=f"ppo, {type(module).__name__}",
            expected="a number",
            found=str(norm),
            do="the last finished iteration is kept; lower the learning rates and run again",
        )
    return norm


def _explained_variance(rollouts: Rollouts, credit: Credit) -> float:
    """How well the values predicted the returns: 1 is perfect, 0 as good as their mean."""
    mask = rollouts.sequences.response_mask
    unexplained = masked_var(credit.returns - rollouts.values, mask)
    return float(1.0 - unexplained / (masked_var(credit.returns, mask) + 1e-8))
