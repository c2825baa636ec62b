"""What best of n does, once a cycle: the SFT policy chooses among more responses than in the last one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from components.alignment.method import Iteration, Job, Room, Source, rows_of_iteration
from components.config import BestOfN
from components.measuring.measure import progress
from components.models.best_of_n import BestOfNPolicy
from components.models.loading import save_best_of_n
from components.scoring.scorer import trained_folder


def responses_of_cycle(settings: BestOfN, number: int) -> int:
    """n of cycle `number`, counted from 1."""
    n: int = settings.first_n * settings.growth ** (number - 1)
    return n


class BestOfNLearner:
    """The SFT policy with the reward model that chooses; all cycles together draw reward and gold along the KL.

    Nothing is trained and nothing sampled for training: the cost comes with every response that is asked for. The kl of
    a row is at most the mean of these.
    """

    name = "best_of_n"
    iterations_per_cycle = 1
    shown = ("n",)

    def __init__(self, job: Job, source: Source) -> None:  # of which nothing is taken
        self._job = job
        self._settings = cast(BestOfN, job.settings)
        self._n = responses_of_cycle(self._settings, job.cycle.number)

    def trainable(self) -> None:
        return None

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Never called, as nothing is trained."""

    def iterate(self, iteration: int) -> Iteration:
        started = time.monotonic()
        job = self._job
        scorer = job.frozen.reward_model.token_model
        assert scorer is not None  # components.config sees to it
        policy = BestOfNPolicy(job.frozen.reference, scorer, self._n)
        count = self._settings.progress_prompts
        watched = rows_of_iteration(job.cycle.prompts, count, 0, job.shared.seed, "best_of_n/progress")
        figures = progress(policy, job.frozen, job.shared, watched, "best_of_n/progress", job.accelerator)
        row = {"n": self._n, **figures, "sampled_tokens": 0, "trained_tokens": 0}
        return Iteration(row, {"samples": time.monotonic() - started})

    def stored(self) -> dict[str, nn.Module]:
        return {}

    def save(self, folder: Path, model: nn.Module | None) -> None:
        folders = self._job.frozen.folders
        trained = trained_folder(folders.reward_model)
        assert trained is not None
        save_best_of_n(folders.reference, trained, self._n, folder / "policy")

    def progress(self) -> dict[str, Any]:
        return {}


ROOM = Room(learns_from="prompts", start=BestOfNLearner)
