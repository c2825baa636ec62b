"""What DPO does in an iteration: optimiser steps on comparisons, then a few answers to show the policy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from components.alignment.method import Iteration, Job, Room, Source, Trainable, rows_of_iteration
from components.alignment.preferences.reference import reference_logprobs
from components.alignment.preferences.update import Updater
from components.config import Dpo
from components.measuring.measure import progress
from components.models.loading import load_policy, save_policy
from components.passes.sequences import comparison_pairs
from components.training.schedule import ParameterGroup, warmup_then
from components.training.sharding import frame_of, placed


class DpoLearner:
    """DPO at work.

    The reference is the SFT policy in every cycle. Logprobs are those of the policies as they are sampled from and
    measured: at measurement.temperature. Nothing that is trained on is sampled, so sampled_tokens is 0; the curve's
    figures of sampled responses come from the policy after the iteration's steps, on the same prompts every time.
    """

    name = "dpo"
    shown = ("loss", "accuracy")

    def __init__(self, job: Job, source: Source) -> None:
        self._job = job
        self._settings = cast(Dpo, job.settings)
        self.iterations_per_cycle = self._settings.iterations_per_cycle
        policy = load_policy(source.folder / "policy", job.shared.language_model, trained=True)
        self._policy = placed(job.accelerator, policy)
        self._frame = frame_of(job.accelerator, self._policy)
        self._watched = rows_of_iteration(
            job.cycle.prompts, self._settings.progress_prompts, 0, job.shared.seed, "dpo/progress"
        )

    def trainable(self) -> Trainable:
        return Trainable(self._policy, parameter_groups(self._policy, self._settings), self._settings.weight_decay)

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        job = self._job
        settings = self._settings
        temperature = job.shared.measurement.temperature
        pairs = comparison_pairs(job.cycle.comparisons, job.frozen.codec)
        end = job.cycle.number * settings.iterations_per_cycle
        ref_logprobs = reference_logprobs(
            job.accelerator,
            job.frozen.reference,
            pairs,
            [self._rows(number) for number in range(end - settings.iterations_per_cycle, end)],
            temperature=temperature,
            microbatch_size=settings.microbatch_size,
        )
        ids = [row.id for row in job.cycle.comparisons]
        self._updater = Updater(
            *(job.accelerator, model, optimizer, pairs, ref_logprobs, ids, settings),
            temperature=temperature,
            method=self.name,
            checks=job.checks if job.begins_as_reference else None,
        )

    def iterate(self, iteration: int) -> Iteration:
        started = time.monotonic()
        job = self._job
        with job.frozen_offloaded(self._policy):
            statistics = self._updater.update(torch.tensor(self._rows(iteration)), iteration)
        updated = time.monotonic()
        with job.sampled_from(self._policy, self._frame) as policy:
            figures = progress(policy, job.frozen, job.shared, self._watched, "dpo/progress", job.accelerator)
        row = {**figures, "sampled_tokens": 0, **statistics}
        return Iteration(row, {"steps": updated - started, "samples": time.monotonic() - updated})

    def stored(self) -> dict[str, nn.Module]:
        return {"policy": self._policy}

    def save(self, folder: Path, model: nn.Module | None) -> None:
        save_policy(model, self._job.frozen.codec, folder / "policy")

    def progress(self) -> dict[str, Any]:
        return {}

    def _rows(self, iteration: int) -> list[int]:
        """The comparisons of an iteration."""
        there = range(len(self._job.cycle.comparisons))
        count = self._settings.comparisons_per_iteration
        return rows_of_iteration(there, count, iteration, self._job.shared.seed, "dpo/comparisons")


def parameter_groups(policy: nn.Module, settings: Dpo) -> dict[str, ParameterGroup]:
    """The whole policy, with a learning rate that warms up."""
    factor = warmup_then(settings.learning_rate_warmup_iterations)
    return {"policy": ParameterGroup(policy.parameters(), settings.learning_rate, factor)}


ROOM = Room(learns_from="comparisons", start=DpoLearner)
