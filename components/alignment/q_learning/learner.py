"""What Q-learning does in an iteration: optimiser steps on comparisons, then a few answers to show the policy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from components.alignment.first_step import require_no_kl
from components.alignment.method import Iteration, Job, Room, Source, Trainable, rows_of_iteration
from components.alignment.q_learning import checkpoint
from components.alignment.q_learning.dataset import score_comparisons
from components.alignment.q_learning.model import QLearner
from components.alignment.q_learning.update import update
from components.config import QLearning
from components.measuring.measure import progress
from components.passes.forward import response_logprobs
from components.training.schedule import ParameterGroup, warmup_then
from components.training.sharding import frame_of, passed_through


class QLearningLearner:
    """Q-learning at work.

    The curve's figures of sampled responses come from the policy as it decodes after the iteration's steps, on the
    same prompts every time; nothing that is trained on is sampled.
    """

    name = "q_learning"
    shown = ("loss", "accuracy")

    def __init__(self, job: Job, source: Source) -> None:
        self._job = job
        self._settings = cast(QLearning, job.settings)
        self.iterations_per_cycle = self._settings.iterations_per_cycle
        self._now = checkpoint.start(
            *(source.folder, self._settings, job.shared.seed, job.accelerator.device, job.shared.language_model),
            in_shards=job.accelerator.is_fsdp2,
        )
        self._frame = frame_of(job.accelerator, self._now.learner.policy)
        self._watched = rows_of_iteration(
            job.cycle.prompts, self._settings.progress_prompts, 0, job.shared.seed, "q_learning/progress"
        )

    def trainable(self) -> Trainable:
        learner = self._now.learner
        return Trainable(learner, parameter_groups(learner, self._settings), self._settings.weight_decay)

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        job = self._job
        self._model = model
        self._optimizer = optimizer
        self._data = score_comparisons(job.accelerator, job.frozen, job.shared, job.cycle.comparisons)

    def iterate(self, iteration: int) -> Iteration:
        started = time.monotonic()
        job = self._job
        settings = self._settings
        comparisons = rows_of_iteration(
            range(len(job.cycle.comparisons)),
            settings.comparisons_per_iteration,
            iteration,
            job.shared.seed,
            "q_learning/comparisons",
        )
        if iteration == 0:
            self._require_no_guidance()
        targets = self._now.guided.target_q_heads
        with job.frozen_offloaded(self._now.learner):
            statistics = update(
                job.accelerator, self._model, targets, self._optimizer, self._data, comparisons, settings, iteration
            )
        self._now.refresh()
        updated = time.monotonic()
        with job.sampled_from(self._now.learner, self._frame) as policy:
            guided = self._now.guided.around(policy)
            figures = progress(guided, job.frozen, job.shared, self._watched, "q_learning/progress", job.accelerator)
        row = {**figures, "sampled_tokens": 0, **statistics}
        return Iteration(row, {"steps": updated - started, "samples": time.monotonic() - updated})

    @torch.no_grad()
    def _require_no_guidance(self) -> None:
        """Heads begin with nothing to say: the guided policy is the SFT policy. Raises: TrainingError."""
        job, guided, reference = self._job, self._now.guided, self._job.frozen.reference
        part = self._data.sequences.rows(slice(self._settings.microbatch_size))
        with job.accelerator.autocast(), passed_through(job.accelerator, self._now.learner, guided) as asked:
            found, expected = (response_logprobs(policy, part, 1.0) for policy in (asked, reference))
        where = f"{self.name}, iteration 1"
        require_no_kl(job.checks, where, found, expected, part.response_mask, guided.policy, reference, step=1)

    def stored(self) -> dict[str, nn.Module]:
        return {"policy": self._now.guided, "q_heads": self._now.learner.q_heads}

    def save(self, folder: Path, model: nn.Module | None) -> None:
        checkpoint.save(folder, self._now.with_whole(cast(QLearner, model)), self._job.frozen.codec)

    def progress(self) -> dict[str, Any]:
        return {}


def parameter_groups(learner: QLearner, settings: QLearning) -> dict[str, ParameterGroup]:
    """Policy and heads, each with its own learning rate."""
    factor = warmup_then(settings.learning_rate_warmup_iterations)
    heads = [*learner.value_head.parameters(), *learner.q_heads.parameters()]
    return {
        "policy": ParameterGroup(learner.policy.parameters(), settings.learning_rate, factor),
        "heads": ParameterGroup(heads, settings.head_learning_rate, factor),
    }


ROOM = Room(learns_from="comparisons", start=QLearningLearner)
