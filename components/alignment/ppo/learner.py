"""PPO: a value model predicts the return of each state, and tokens are credited by generalised advantage estimation."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from components.alignment.method import Job, Room, Source
from components.alignment.policy_gradient.credit import Estimate
from components.alignment.policy_gradient.learner import PolicyGradientLearner
from components.config import Ppo
from components.core.advantages import gae


def estimate(settings: Ppo) -> Estimate:
    """Advantages and returns by GAE (Schulman et al. 2016), each by a lambda of its own if asked.

    Apart they are the decoupled GAE of VC-PPO and VAPO (Yuan et al. 2025): with a lambda of 1 the values learn from
    what came of a response, however long it was, and the advantages keep their smaller variance.
    """

    def of_tokens(rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = gae(rewards, values, mask, settings.gamma, settings.gae_lambda)
        if settings.value_gae_lambda is None:
            return found
        of_values = gae(rewards, values, mask, settings.gamma, settings.value_gae_lambda)
        return found.advantages, of_values.returns

    return of_tokens


def start(job: Job, source: Source) -> PolicyGradientLearner:
    """Begin a cycle, or go on with one; the reward model serves as the first value model."""
    settings = cast(Ppo, job.settings)
    return PolicyGradientLearner(job, source, estimate(settings), critic=settings)


ROOM = Room(learns_from="prompts", start=start)
