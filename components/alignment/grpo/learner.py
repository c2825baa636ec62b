"""GRPO: no value model; a response is credited with how far its return is from the mean of those to its prompt."""

from __future__ import annotations

from typing import cast

from components.alignment.method import Job, Room, Source
from components.alignment.policy_gradient.credit import Estimate, estimate_by_group
from components.alignment.policy_gradient.learner import PolicyGradientLearner
from components.config import Grpo
from components.core.advantages import dr_grpo, grpo


def estimate(settings: Grpo) -> Estimate:
    """Advantages in standard deviations of the group (Shao et al. 2024), or as they are (Dr. GRPO, Liu et al. 2025)."""
    of_group = grpo if settings.advantage_scale == "std" else dr_grpo
    return estimate_by_group(of_group, settings.responses_per_prompt)


def start(job: Job, source: Source) -> PolicyGradientLearner:
    """Begin a cycle, or go on with one."""
    return PolicyGradientLearner(job, source, estimate(cast(Grpo, job.settings)), critic=None)


ROOM = Room(learns_from="prompts", start=start)
