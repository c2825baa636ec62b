"""What an iteration's rollouts are held against before anything is learned from them."""

from __future__ import annotations

from torch import nn

from components.alignment.first_step import require_no_kl, require_sampled_alike
from components.alignment.method import Job
from components.alignment.policy_gradient.rollouts import Rollouts
from components.config import OnlineDpo, PolicyGradientMethod


def check_rollouts(
    job: Job,
    name: str,
    settings: PolicyGradientMethod | OnlineDpo,
    rollouts: Rollouts,
    iteration: int,
    policy: nn.Module,
    reference: nn.Module,
) -> None:
    """What must hold of rollouts, and where a cycle begins of those that it begins with.

    Args:
        name: the method's, for errors.
    Raises:
        TrainingError: it does not.
    """
    mask, where = rollouts.sequences.response_mask, f"{name}, iteration {iteration + 1}"
    sampled, recorded = rollouts.sampled_logprobs, rollouts.old_logprobs
    precision = job.accelerator.mixed_precision
    if job.shared.generation.engine == "own":  # another engine's have a limit of their own: `held_against_ours`
        require_sampled_alike(job.checks, where, sampled, recorded, mask, precision, iteration + 1)
    in_cycle = iteration - (job.cycle.number - 1) * settings.iterations_per_cycle
    if (iteration == 0 and job.begins_as_reference) or (in_cycle == 0 and settings.reference == "refreshed"):
        ref_logprobs = rollouts.ref_logprobs
        require_no_kl(job.checks, where, recorded, ref_logprobs, mask, policy, reference, step=iteration + 1)
