"""Phase 2: the weights move by the clipped policy loss, the value loss and the entropy term, in one objective."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import Credit
from components.alignment.policy_gradient.rollouts import Rollouts
from components.config import PolicyGradientMethod, Ppo
from components.core.kl import kl_estimate
from components.core.losses import aggregate, policy_loss, value_loss
from components.core.stats import masked_sum, masked_var
from components.errors import TrainingError
from components.passes.sequences import Packed, Sequences, microbatches
from components.seeding import generator
from components.training.passes import Passes

Statistics = dict[str, float]


class Microbatch(NamedTuple):
    """B sequences and what is known of them. Shapes: mask and what follows it (B, T), but for the last three, ()."""

    sequences: Packed | Sequences
    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    old_values: Tensor
    returns: Tensor
    kl_coef: Tensor
    tokens: Tensor  # response tokens of the whole step
    counted: Tensor  # what the losses are means over: the step's tokens, or its sequences


class Outcome(NamedTuple):
    """What a microbatch adds to its step. Shapes: () each, but for terms (losses, B, T): the first of `measured`."""

    objective: Tensor
    measured: dict[str, Tensor]
    ratio_max: Tensor
    terms: Tensor


class Updater:
    """Moves a model, in place, iteration by iteration."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: PolicyGradientMethod,
        seed: int,
    ) -> None:
        self._accelerator, self._model, self._optimizer = accelerator, model, optimizer
        self._settings, self._seed = settings, seed
        self._inner: ActorCritic = accelerator.unwrap_model(model)
        self._accumulate = Passes(accelerator, self._forward_and_backward, *self._inner.models, backward=True)

    def update(self, rollouts: Rollouts, credit: Credit, kl_coef: float, iteration: int) -> Statistics:
        """Several epochs of minibatch steps on one batch of rollouts.

        Stops early once a step finds the policy more than max_update_kl_nats_per_token away from the rollouts' policy.

        Returns:
            Means over all steps: policy_loss, value_loss, entropy, clip_fraction, value_clip_fraction, approx_kl (old
            to new policy, 0.5 * squared log-ratio), ratio_max, gradient norms; of the batch explained_variance (with a
            value model); and the number of steps, and of trained_tokens (prompts and responses, as often as they went
            through a step).
        Raises:
            TrainingError: a loss or ratio that is not finite; the rows are named.
        """
        settings = self._settings
        statistics = {"explained_variance": _explained_variance(rollouts, credit)} if settings.has_value_model else {}
        mask = rollouts.sequences.response_mask
        steps: list[Statistics] = []
        trained_tokens = 0
        for epoch in range(settings.epochs):
            order = torch.randperm(len(mask), generator=generator(self._seed, "ppo", "minibatches", iteration, epoch))
            for rows in torch.chunk(order.to(mask.device), settings.minibatches):
                steps.append(self._step(rollouts, credit, rows, kl_coef, iteration))
                trained_tokens += int(rollouts.sequences.mask[rows].sum())
                if _moved_too_far(steps[-1], settings):
                    break
            if _moved_too_far(steps[-1], settings):
                break
        for name in steps[0]:
            values = [step[name] for step in steps]
            statistics[name] = max(values) if name == "ratio_max" else sum(values) / len(values)
        return statistics | {"steps": len(steps), "trained_tokens": trained_tokens}

    def _step(self, rollouts: Rollouts, credit: Credit, rows: Tensor, kl_coef: float, iteration: int) -> Statistics:
        """One optimiser step. Losses are means over all tokens (or sequences) of the minibatch, in whatever parts."""
        accelerator, settings = self._accelerator, self._settings
        tokens = float(rollouts.sequences.response_mask[rows].sum())
        counted = tokens if settings.loss_aggregation == "token_mean" else float(len(rows))
        numbers = credit.advantages.new_tensor([kl_coef, tokens, counted])
        share = rows[accelerator.process_index :: accelerator.num_processes]
        mine = rollouts.sequences.rows(share, trim=False)
        parts = list(microbatches(mine, settings.microbatch_size, trim=self._accumulate.trim))
        sums: dict[str, Tensor] = {}
        ratio_max = torch.zeros((), device=credit.advantages.device)
        for number, (index, sequences) in enumerate(parts, start=1):
            chosen = share[index]
            microbatch = self._microbatch(sequences, chosen, rollouts, credit, numbers)
            with contextlib.nullcontext() if number == len(parts) else accelerator.no_sync(self._model):
                outcome = self._accumulate(microbatch)
            _require_finite(outcome, microbatch.mask, chosen, iteration, settings.method)
            for name, term in outcome.measured.items():
                sums[name] = sums.get(name, torch.zeros_like(term)) + term
            ratio_max = torch.maximum(ratio_max, outcome.ratio_max)
        norms = {"policy_gradient_norm": _clip(self._inner.policy, settings)}
        if self._inner.value_model is not None:
            norms["value_gradient_norm"] = _clip(self._inner.value_model, settings)
        self._optimizer.step()
        self._accumulate.zero_grad(self._optimizer)
        totals = accelerator.reduce(torch.stack(list(sums.values())), reduction="sum").tolist()
        ratio_max = accelerator.gather(ratio_max.reshape(1)).max()
        return {**dict(zip(sums, totals, strict=True)), **norms, "ratio_max": float(ratio_max)}

    def _microbatch(
        self, sequences: Sequences, rows: Tensor, rollouts: Rollouts, credit: Credit, numbers: Tensor
    ) -> Microbatch:
        width = sequences.response_tokens.shape[1]
        columns = (rollouts.old_logprobs, rollouts.ref_logprobs, credit.advantages, rollouts.values, credit.returns)
        inputs = self._accumulate.inputs(sequences)
        return Microbatch(inputs, sequences.response_mask, *(column[rows, :width] for column in columns), *numbers)

    def _forward_and_backward(self, batch: Microbatch) -> Outcome:
        """Add the gradients of a microbatch's share of the losses."""
        settings, mask = self._settings, batch.mask
        new = self._model(batch.sequences, settings.temperature)
        policy = policy_loss(
            new.logprobs,
            batch.old_logprobs,
            batch.advantages,
            mask,
            clip_low=settings.clip_range_low,
            clip_high=settings.clip_range_high,
            dual_clip=settings.dual_clip,
        )
        critic = cast(Ppo, settings) if settings.has_value_model else None
        clip_range = critic.value_clip_range if critic else None
        value = value_loss(new.values, batch.old_values, batch.returns, mask, value_clip_range=clip_range)
        terms = {"policy_loss": policy.loss, "value_loss": value.loss, "entropy": new.entropy}
        if settings.kl_placement == "loss":
            terms["kl_loss"] = kl_estimate(new.logprobs, batch.ref_logprobs, settings.kl_estimator)
        losses = {
            # Divided here, not there: the count is a tensor, as in a graph it differs from replay to replay.
            name: aggregate(term, mask, settings.loss_aggregation, 1.0) / batch.counted
            for name, term in terms.items()
        }
        objective = losses["policy_loss"]
        if settings.entropy_coef > 0:  # with 0, its gradient is not computed in vain
            objective = objective - settings.entropy_coef * losses["entropy"]
        if settings.kl_placement == "loss":
            objective = objective + batch.kl_coef * losses["kl_loss"]
        if critic:
            objective = objective + critic.value_loss_coef * losses["value_loss"]
        # Data parallelism averages gradients over the processes; the loss is already a share of the whole mean.
        self._accelerator.backward(objective * self._accelerator.num_processes)
        log_ratio = (new.logprobs - batch.old_logprobs).detach()
        measured = {name: loss.detach() for name, loss in losses.items()} | {
            "clip_fraction": masked_sum(policy.clipped.float(), mask) / batch.tokens,
            "value_clip_fraction": masked_sum(value.clipped.float(), mask) / batch.tokens,
            "approx_kl": masked_sum(0.5 * log_ratio.square(), mask) / batch.tokens,
        }
        ratio_max = torch.where(mask, policy.ratio, 0.0).max()
        return Outcome(objective.detach(), measured, ratio_max, torch.stack([term.detach() for term in terms.values()]))


def _moved_too_far(step: Statistics, settings: PolicyGradientMethod) -> bool:
    limit = settings.max_update_kl_nats_per_token
    return limit is not None and step["approx_kl"] > limit


def _require_finite(outcome: Outcome, mask: Tensor, rows: Tensor, iteration: int, method: str) -> None:
    if torch.isfinite(outcome.objective):
        return
    of_rows = masked_sum(outcome.terms, mask.expand_as(outcome.terms), dim=2)
    broken = rows[~torch.isfinite(of_rows).all(dim=0)]
    named = broken if len(broken) else rows  # finite rows can overflow together
    losses = list(outcome.measured.items())[: len(outcome.terms)]
    raise TrainingError(
        "the PPO objective is not finite",
        where=f"{method}, iteration {iteration + 1}, rollouts {named.tolist()[:8]}",
        expected="a number",
        found=", ".join(f"{name} {float(loss)}" for name, loss in losses),
        do=f"the last finished iteration is kept; lower {method}.learning_rate and run again",
    )


def _clip(module: nn.Module, settings: PolicyGradientMethod) -> float:
    """Clip policy and value gradients apart: a large value error must not shrink the policy's step."""
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), settings.gradient_clip))
    if not math.isfinite(norm):
        raise TrainingError(
            "a gradient is not finite",
            where=f"{settings.method}, {type(module).__name__}",
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
