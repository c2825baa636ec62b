"""What online DPO does in an iteration: responses of the policy, pairs of them by the reward model, steps on these."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from components.alignment.method import Iteration, Job, Room, Source, Trainable, rows_of_iteration
from components.alignment.online_dpo.pairs import Maker, Pairs, pairs_of, rows_of
from components.alignment.policy_gradient import checkpoint
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.checks import check_rollouts
from components.alignment.policy_gradient.engine import engine_for
from components.alignment.policy_gradient.mismatch import held_against_ours
from components.alignment.policy_gradient.reference import reference_of
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt, Rollouts, figures_of
from components.alignment.preferences.update import Statistics, Updater
from components.config import OnlineDpo
from components.core.stats import masked_sum
from components.data.rows import Comparison, read_rows, write_rows
from components.digests import digest
from components.training.schedule import ParameterGroup, warmup_then
from components.training.sharding import frame_of, placed, reshard

logger = logging.getLogger("proximal")
_PAIRS = Path("state", "pairs.jsonl")  # those of the cycle's iterations so far


class OnlineDpoLearner:
    """Online DPO at work (OAIF, Guo et al. 2024, with the reward model as the annotator).

    Pairs are used once, in the iteration that made them; all of a cycle are kept beside its policy.
    """

    name = "online_dpo"
    shown = ("pairs",)

    def __init__(self, job: Job, source: Source) -> None:
        self._job = job
        self._settings = settings = cast(OnlineDpo, job.settings)
        self.iterations_per_cycle = settings.iterations_per_cycle
        model = checkpoint.load_model(source.folder / "policy", None, job.shared.language_model)
        self._model = placed(job.accelerator, model)
        self._frame = frame_of(job.accelerator, self._model.policy)
        self._reference = reference_of(settings, job, source, self._model.policy)
        self._stored_policy = source.folder / "policy"
        self._rows: list[Comparison] = [] if source.is_new_cycle else read_rows(source.folder / _PAIRS, Comparison)
        self._reward_model = digest(job.frozen.folders.reward_model) if job.accelerator.is_main_process else ""
        rows = job.cycle.prompts
        tokens = job.frozen.codec.encode_prompts([row.asked for row in rows])
        self._prompts = list(map(EncodedPrompt, rows, tokens))

    def trainable(self) -> Trainable:
        policy, settings = self._model.policy, self._settings
        return Trainable(policy, parameter_groups(policy, settings), settings.weight_decay)

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        job, policy = self._job, self._model.policy
        tokens = [prompt.tokens for prompt in self._prompts]
        self._collector = Collector(
            *(job.accelerator, self._model, self._reference, job.frozen, self._settings, job.shared, self.name),
            lambda: job.sampled_from(self._model.policy, self._frame),
            engine_for(job, policy, self._frame, tokens, self._settings.temperature),
        )
        self._trained, self._optimizer = model, optimizer

    def iterate(self, iteration: int) -> Iteration:
        started = time.monotonic()
        job, settings = self._job, self._settings
        count, seed = settings.prompts_per_iteration, job.shared.seed
        asked = rows_of_iteration(self._prompts, count, iteration, seed, "online_dpo/prompts")
        prompts = [prompt for prompt in asked for _ in range(settings.responses_per_prompt)]
        of_engine = self._collector.sync(iteration + 1)
        synced = time.monotonic()
        rollouts = self._collector.roll_out(prompts, iteration)
        check_rollouts(job, self.name, settings, rollouts, iteration, self._model.policy, self._reference)
        of_mismatch, _ = held_against_ours(
            *(job.checks, rollouts.old_logprobs, rollouts.sampled_logprobs, rollouts.sequences.response_mask),
            *(job.shared.generation, f"{self.name}, iteration {iteration + 1}", iteration + 1),
        )
        pairs = pairs_of(rollouts, settings, job.frozen.codec)
        if job.accelerator.is_main_process:
            maker = Maker(digest(self._stored_policy), self._reward_model, job.cycle.number, iteration + 1)
            self._rows += rows_of(pairs, prompts, maker)
        rolled_out = time.monotonic()
        with job.frozen_offloaded(self._model, self._reference):
            statistics = self._update(rollouts, pairs, [prompt.row.id for prompt in prompts], iteration)
        row = {**figures_of(rollouts), "pairs": len(pairs.chosen), "ties": pairs.ties, **statistics}
        of_syncing = {"syncing": synced - started} if of_engine else {}
        took = {**of_syncing, "rollouts": rolled_out - synced, "updates": time.monotonic() - rolled_out}
        return Iteration(row | of_engine | of_mismatch, took)

    def stored(self) -> dict[str, nn.Module]:
        moved = {} if self._moved is None else {"reference": self._moved}
        return {"policy": self._model.policy, **moved}

    def save(self, folder: Path, model: nn.Module | None) -> None:
        checkpoint.save(folder, ActorCritic(cast(nn.Module, model), None), self._moved, self._job.frozen.codec)
        write_rows(folder / _PAIRS, self._rows)
        self._stored_policy = self._job.cycle.work / "policy"  # where it lies once this iteration is done

    def progress(self) -> dict[str, Any]:
        return {}

    @property
    def _moved(self) -> Any:
        """The reference where it is not the SFT policy, else None."""
        return None if self._reference is self._job.frozen.reference else self._reference

    def _update(self, rollouts: Rollouts, pairs: Pairs, prompt_ids: list[str], iteration: int) -> Statistics:
        """Steps on the pairs of an iteration, in every process the same ones; none where all prompts tie."""
        if len(pairs.chosen) == 0:
            logger.warning(
                "%s, iteration %d: no prompt has two responses of different scores, so that nothing was learned; "
                "if it goes on, raise %s.responses_per_prompt or %s.temperature",
                *(self.name, iteration + 1, self.name, self.name),
            )
            reshard(self._job.accelerator, self._trained)
            return {"steps": 0, "trained_tokens": 0}
        both, mask = pairs.both, rollouts.sequences.response_mask
        updater = Updater(
            *(self._job.accelerator, self._trained, self._optimizer),
            rollouts.sequences.rows(both),
            masked_sum(rollouts.ref_logprobs, mask, dim=1)[both].reshape(2, -1),
            [prompt_ids[number] for number in pairs.chosen.tolist()],
            self._settings,
            temperature=self._settings.temperature,
            method=self.name,
            checks=self._job.checks,
            old_logprobs=rollouts.old_logprobs[both],
        )
        statistics = updater.update(torch.arange(len(pairs.chosen)), iteration)
        return {"score_gap": pairs.mean_gap(), **statistics}


def parameter_groups(policy: nn.Module, settings: OnlineDpo) -> dict[str, ParameterGroup]:
    """The whole policy, with a learning rate that warms up."""
    factor = warmup_then(settings.learning_rate_warmup_iterations)
    return {"policy": ParameterGroup(policy.parameters(), settings.learning_rate, factor)}


ROOM = Room(learns_from="prompts", start=OnlineDpoLearner)
