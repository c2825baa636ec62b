"""The policy that KL is measured from, which stays where it is or follows the trained one from cycle to cycle."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from components.alignment.method import Job, Source
from components.config import OnlineDpo, PolicyGradientMethod
from components.core.ilql import polyak
from components.models.loading import load_policy


def reference_of(settings: PolicyGradientMethod | OnlineDpo, job: Job, source: Source, policy: nn.Module) -> Any:
    """The policy that KL is measured from: the SFT policy, or what has become of it; it moves when a cycle starts."""
    if settings.reference == "fixed":
        return job.frozen.reference
    # A state without its reference is a damaged one, which `load_policy` refuses: the SFT policy is only its beginning.
    stored = source.folder / "state" / "reference" if source.has_state else job.frozen.folders.reference
    # One that moves is held like what is trained: in half precision a small move would be lost.
    reference = load_policy(stored, job.shared.language_model, trained=True)
    reference = reference.to(job.accelerator.device)
    if source.is_new_cycle:
        weight = 1.0 if settings.reference == "refreshed" else settings.reference_average_weight
        now = [parameter.to(job.accelerator.device) for parameter in policy.parameters()]
        averaged = polyak(list(reference.parameters()), now, weight)
        with torch.no_grad():
            for parameter, value in zip(reference.parameters(), averaged, strict=True):
                parameter.copy_(value)
    return reference
