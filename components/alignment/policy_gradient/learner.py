"""What PPO, GRPO and RLOO do in an iteration: rollouts (phase 1), credit, updates (phase 2)."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from components.alignment.method import CurveRow, Iteration, Job, Source, Trainable, other_rows, rows_of_iteration
from components.alignment.policy_gradient import checkpoint
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.checkpoint import Progress
from components.alignment.policy_gradient.checks import check_rollouts
from components.alignment.policy_gradient.credit import Credit, Estimate, assign_credit
from components.alignment.policy_gradient.dynamic_sampling import Drawn, draw_groups
from components.alignment.policy_gradient.engine import engine_for
from components.alignment.policy_gradient.mismatch import held_against_ours
from components.alignment.policy_gradient.reference import reference_of
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt, Rollouts, figures_of
from components.alignment.policy_gradient.update import Statistics, Updater
from components.config import CriticFree, PolicyGradientMethod, Ppo
from components.core.kl import next_kl_coef
from components.core.stats import RunningMoments
from components.models.loading import first_member
from components.scoring.scorer import trained_folder
from components.seeding import derive_seed
from components.training.schedule import ParameterGroup, still_until, warmup_then
from components.training.sharding import frame_of, placed

logger = logging.getLogger("proximal")


class PolicyGradientLearner:
    """PPO, GRPO or RLOO at work: rollouts, what they are credited with, updates.

    Args:
        estimate: from rewards to advantages, which is what the methods differ in.
        critic: the settings of the value model; None without one.
    """

    shown = ("entropy",)

    def __init__(self, job: Job, source: Source, estimate: Estimate, critic: Ppo | None) -> None:
        settings = cast(PolicyGradientMethod, job.settings)
        value_folder: Path | None = None
        value_seed = derive_seed(job.shared.seed, "ppo", "value_head") if critic is not None else None
        if critic is not None:
            trained = trained_folder(job.frozen.folders.reward_model)
            value_folder = first_member(trained) if trained is not None else None
            if source.has_state:
                value_folder = source.folder / "state" / "value_model"
        self.name = job.method
        self.iterations_per_cycle = settings.iterations_per_cycle
        self._job = job
        self._settings = settings
        self._estimate = estimate
        self._critic = critic
        held_as = job.shared.language_model
        model = checkpoint.load_model(source.folder / "policy", value_folder, held_as, value_seed)
        self._model = placed(job.accelerator, model)
        self._frame = frame_of(job.accelerator, self._model.policy)
        self._reference = reference_of(settings, job, source, self._model.policy)
        self._progress = Progress(settings.kl_coef, RunningMoments())
        if source.has_state:
            self._progress = checkpoint.load_progress(source.folder)
        rows = job.cycle.prompts
        tokens = job.frozen.codec.encode_prompts([row.asked for row in rows])
        self._prompts = list(map(EncodedPrompt, rows, tokens))

    def trainable(self) -> Trainable:
        groups = parameter_groups(self._model, self._settings, self._critic)
        return Trainable(self._model, groups, self._settings.weight_decay)

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        job = self._job
        tokens = [prompt.tokens for prompt in self._prompts]
        engine = engine_for(job, self._model.policy, self._frame, tokens, self._settings.temperature)
        self._collector = Collector(
            *(job.accelerator, self._model, self._reference, job.frozen, self._settings, job.shared, self.name),
            lambda: job.sampled_from(self._model, self._frame),
            engine,
        )
        limit = job.shared.language_model.max_response_tokens
        self._updater = Updater(
            *(job.accelerator, model, optimizer, self._settings, self._critic, job.shared.seed, self.name, limit),
            checks=job.checks,
        )

    def iterate(self, iteration: int) -> Iteration:
        started = time.monotonic()
        settings = self._settings
        kl_coef = self._progress.kl_coef
        of_engine = self._collector.sync(iteration + 1)
        synced = time.monotonic()
        rollouts, of_sampling = self._sample(iteration)
        policies = self._model.policy, self._reference
        check_rollouts(self._job, self.name, settings, rollouts, iteration, *policies)
        credit, moments = assign_credit(rollouts, kl_coef, self._progress.score_moments, settings, self._estimate)
        of_mismatch, credit = self._against_the_engine(rollouts, credit, iteration)
        rolled_out = time.monotonic()
        with self._job.frozen_offloaded(self._model, self._reference):
            statistics = self._updater.update(rollouts, credit, kl_coef, iteration)
        row = _curve_row(kl_coef, rollouts, credit, statistics) | of_engine | of_mismatch | of_sampling
        if settings.mask_truncated:
            row["truncated_masked"] = int((~rollouts.ended).sum())
        self._progress = Progress(_next_kl_coef(kl_coef, row["kl"], settings), moments)
        of_syncing = {"syncing": synced - started} if of_engine else {}
        took = {**of_syncing, "rollouts": rolled_out - synced, "updates": time.monotonic() - rolled_out}
        return Iteration(row, took)

    def _against_the_engine(
        self, rollouts: Rollouts, credit: Credit, iteration: int
    ) -> tuple[dict[str, float], Credit]:
        """Figures of another engine's logprobs beside ours, and the credit with the weights that mend the difference.

        Every policy loss is a multiple of the advantage: a weight of the one is a weight of the other.
        """
        figures, weights = held_against_ours(
            *(self._job.checks, rollouts.old_logprobs, rollouts.sampled_logprobs, rollouts.sequences.response_mask),
            *(self._job.shared.generation, f"{self.name}, iteration {iteration + 1}", iteration + 1),
        )
        return figures, credit if weights is None else credit._replace(advantages=credit.advantages * weights)

    def _sample(self, iteration: int) -> Drawn:
        """The iteration's rollouts, a prompt's responses one after the other."""
        settings, seed = self._settings, self._job.shared.seed
        groups = settings.rollouts_per_iteration // settings.responses_per_prompt
        there = range(len(self._prompts))
        asked = rows_of_iteration(there, groups, iteration, seed, "ppo/prompts")

        def roll_out(numbers: list[int], sampling_round: int) -> Rollouts:
            prompts = [self._prompts[number] for number in numbers for _ in range(settings.responses_per_prompt)]
            return self._collector.roll_out(prompts, iteration, sampling_round)

        if not isinstance(settings, CriticFree) or settings.dynamic_sampling_rounds == 0:
            return Drawn(roll_out(asked, 0), {})
        drawn = draw_groups(roll_out, asked, other_rows(len(there), asked, iteration, seed, "ppo/prompts"), settings)
        if (left := drawn.figures["prompts_left_alike"]) and self._job.accelerator.is_main_process:
            logger.info(
                "%s, iteration %d: %d of %d prompts have no responses of differing scores",
                self.name,
                iteration + 1,
                left,
                groups,
            )
        return drawn

    def stored(self) -> dict[str, nn.Module]:
        models = {"policy": self._model.policy, "value_model": self._model.value_model, "reference": self._moved}
        return {name: model for name, model in models.items() if model is not None}

    def save(self, folder: Path, model: nn.Module | None) -> None:
        checkpoint.save(folder, cast(ActorCritic, model), self._moved, self._job.frozen.codec)

    def progress(self) -> dict[str, Any]:
        return asdict(self._progress)

    @property
    def _moved(self) -> Any:
        """The reference where it is not the SFT policy, else None."""
        return None if self._reference is self._job.frozen.reference else self._reference


def parameter_groups(
    model: ActorCritic, settings: PolicyGradientMethod, critic: Ppo | None
) -> dict[str, ParameterGroup]:
    """Policy and value model, each with its own learning rate; the policy waits for the value model to warm up."""
    factor = warmup_then(settings.learning_rate_warmup_iterations, settings.learning_rate_decay_iterations)
    still = critic.value_warmup_iterations if critic else 0
    groups = {"policy": ParameterGroup(model.policy.parameters(), settings.learning_rate, still_until(still, factor))}
    if critic is not None and model.value_model is not None:
        groups["value_model"] = ParameterGroup(model.value_model.parameters(), critic.value_learning_rate, factor)
    return groups


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


def _curve_row(kl_coef: float, rollouts: Rollouts, credit: Credit, statistics: Statistics) -> CurveRow:
    """One iteration in numbers: the rollouts' means, then the update's statistics."""
    return {
        **figures_of(rollouts),
        "shaped_score": float(credit.scores.mean()),
        "kl_coef": kl_coef,
        **{name: value for name, value in statistics.items() if name != "entropy"},
    }
