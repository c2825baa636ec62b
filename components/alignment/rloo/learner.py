"""RLOO: no value model; a response is credited with its return less the mean of the other responses to its prompt."""

from __future__ import annotations

from typing import cast

from components.alignment.method import Job, Room, Source
from components.alignment.policy_gradient.credit import Estimate, estimate_by_group
from components.alignment.policy_gradient.learner import PolicyGradientLearner
from components.config import Rloo
from components.core.advantages import rloo


def estimate(settings: Rloo) -> Estimate:
    """Advantages over the mean of the others, leaving one out (Ahmadian et al. 2024)."""
    return estimate_by_group(rloo, settings.responses_per_prompt)


def start(job: Job, source: Source) -> PolicyGradientLearner:
    """Begin a cycle, or go on with one."""
    return PolicyGradientLearner(job, source, estimate(cast(Rloo, job.settings)), critic=None)


ROOM = Room(learns_from="prompts", start=start)
