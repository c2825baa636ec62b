"""Phase 2: the weights move by the clipped policy loss, the value loss and the entropy term, in one objective."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.first_step import require_ratio_one
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import Credit, learned_from
from components.alignment.policy_gradient.objective import policy_term
from components.alignment.policy_gradient.rollouts import Rollouts
from components.config import PolicyGradientMethod, Ppo
from components.core.aggregation import aggregate, step_denominator
from components.core.kl import kl_estimate
from components.core.losses import value_loss
from components.core.masks import without_truncated
from components.core.stats import masked_sum, masked_var
from components.seeding import generator
from components.self_checks import Checks
from components.training.step import Contribution, OptimizerStep

Statistics = dict[str, float]


class Updater:
    """Moves a model, in place, iteration by iteration.

    Args:
        model, optimizer: as Accelerate prepared them.
        critic: the settings of the value model; None without one.
        method: the name of the settings' section, for errors.
        max_response_tokens: what the loss aggregation sum_over_limit divides by.
        checks: told of what the first step after rollouts found.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: PolicyGradientMethod,
        critic: Ppo | None,
        seed: int,
        method: str,
        max_response_tokens: int,
        checks: Checks | None = None,
    ) -> None:
        self._model = model
        self._limit = max_response_tokens
        self._settings = settings
        self._critic = critic
        self._seed = seed
        self._method = method
        self._checks = checks or Checks()
        self._precision = accelerator.mixed_precision
        inner: ActorCritic = accelerator.unwrap_model(model)
        # Clipped apart: a large value error must not shrink the policy's step.
        clipped: dict[str, nn.Module] = {"policy_gradient_norm": inner.policy}
        if inner.value_model is not None:
            clipped["value_gradient_norm"] = inner.value_model
        self._take_step = OptimizerStep(
            accelerator, model, optimizer, settings.gradient_clip, clipped, section=method, noun="rollouts"
        )

    def update(self, rollouts: Rollouts, credit: Credit, kl_coef: float, iteration: int) -> Statistics:
        """Several epochs of minibatch steps on one batch of rollouts.

        Stops early once a step finds the policy more than max_update_kl_nats_per_token away from the rollouts' policy.
        A minibatch of truncated responses alone takes no step where they are left out.

        Returns:
            Means over all steps: policy_loss, value_loss, entropy, clip_fraction, value_clip_fraction, approx_kl (old
            to new policy, 0.5 * squared log-ratio), ratio_max, gradient norms; of the batch explained_variance (with a
            value model); and the number of steps, and of trained_tokens (prompts and responses, as often as they went
            through a step).
        Raises:
            TrainingError: a loss or gradient that is not finite; the rollouts are named. Or the first step
                finds another policy than that of the rollouts, or there is nothing to learn from.
        """
        settings = self._settings
        mask = learned_from(rollouts, settings)
        statistics = {"explained_variance": _explained_variance(rollouts, credit, mask)} if self._critic else {}
        steps: list[Statistics] = []
        trained_tokens = 0
        for epoch in range(settings.epochs):
            order = torch.randperm(len(mask), generator=generator(self._seed, "ppo", "minibatches", iteration, epoch))
            for rows in torch.chunk(order.to(mask.device), settings.minibatches):
                if not bool(mask[rows].any()):
                    continue
                steps.append(self._step(rollouts, credit, rows, mask[rows], kl_coef, iteration))
                if len(steps) == 1:
                    where = f"{self._method}, iteration {iteration + 1}, step 1"
                    require_ratio_one(self._checks, where, steps[0]["approx_kl"], self._precision, iteration + 1)
                trained_tokens += int(rollouts.sequences.mask[rows].sum())
                if _moved_too_far(steps[-1], settings):
                    break
            if steps and _moved_too_far(steps[-1], settings):
                break
        for name in steps[0]:
            values = [step[name] for step in steps]
            statistics[name] = max(values) if name == "ratio_max" else sum(values) / len(values)
        return statistics | {"steps": len(steps), "trained_tokens": trained_tokens}

    def _step(
        self, rollouts: Rollouts, credit: Credit, rows: Tensor, mask: Tensor, kl_coef: float, iteration: int
    ) -> Statistics:
        """One optimiser step. Losses are means over all tokens (or sequences) of the minibatch, in whatever parts.

        Args:
            mask: of the minibatch, which of its tokens count.
        """
        sequences = rollouts.sequences
        tokens = float(mask.sum())
        denominator = step_denominator(mask, self._settings.loss_aggregation, self._limit)
        return self._take_step(
            rows,
            sequences.mask.sum(dim=1),
            self._settings.microbatch_size,
            lambda part: self._contribution(rollouts, credit, part, kl_coef, tokens, denominator),
            where=f"{self._method}, iteration {iteration + 1}",
            longest_first=True,
        )

    def _contribution(
        self, rollouts: Rollouts, credit: Credit, rows: Tensor, kl_coef: float, tokens: float, denominator: float
    ) -> Contribution:
        """What the rollouts `rows` add to a step with so many response tokens, and what its losses are divided by."""
        settings = self._settings
        part = rollouts.sequences.rows(rows)
        mask = part.response_mask
        if settings.mask_truncated:
            mask = without_truncated(mask, rollouts.ended[rows])

        def there(column: Tensor) -> Tensor:
            return column[rows, : mask.shape[1]]

        old_logprobs = there(rollouts.old_logprobs)
        new = self._model(part, settings.temperature)
        policy = policy_term(settings, new.logprobs, old_logprobs, there(credit.advantages), mask)
        value = value_loss(
            new.values,
            there(rollouts.values),
            there(credit.returns),
            mask,
            value_clip_range=self._critic.value_clip_range if self._critic else None,
        )
        terms = {"policy_loss": policy.loss, "value_loss": value.loss, "entropy": new.entropy}
        if settings.kl_placement == "loss":
            terms["kl_loss"] = kl_estimate(new.logprobs, there(rollouts.ref_logprobs), settings.kl_estimator)
        losses = {name: aggregate(term, mask, settings.loss_aggregation, denominator) for name, term in terms.items()}
        objective = losses["policy_loss"]
        if settings.entropy_coef > 0:  # with 0, its gradient is not computed in vain
            objective = objective - settings.entropy_coef * losses["entropy"]
        if settings.kl_placement == "loss":
            objective = objective + kl_coef * losses["kl_loss"]
        if self._critic:
            objective = objective + self._critic.value_loss_coef * losses["value_loss"]
        log_ratio = (new.logprobs - old_logprobs).detach()
        measured = {name: loss.detach() for name, loss in losses.items()} | {
            "clip_fraction": masked_sum(policy.clipped.float(), mask) / tokens,
            "value_clip_fraction": masked_sum(value.clipped.float(), mask) / tokens,
            "approx_kl": masked_sum(0.5 * log_ratio.square(), mask) / tokens,
        }
        of_rollouts = torch.stack([masked_sum(term.detach(), mask, dim=1) for term in terms.values()])
        ratio_max = torch.where(mask, policy.ratio, 0.0).max()
        return Contribution(objective, measured, of_rollouts, {"ratio_max": ratio_max.detach()})


def _moved_too_far(step: Statistics, settings: PolicyGradientMethod) -> bool:
    limit = settings.max_update_kl_nats_per_token
    return limit is not None and step["approx_kl"] > limit


def _explained_variance(rollouts: Rollouts, credit: Credit, mask: Tensor) -> float:
    """How well the values predicted the returns: 1 is perfect, 0 as good as their mean."""
    unexplained = masked_var(credit.returns - rollouts.values, mask)
    return float(1.0 - unexplained / (masked_var(credit.returns, mask) + 1e-8))
