"""What must hold where a cycle begins to move: the policy is its reference, and trains on what it sampled.

Where one of them does not hold, curves look like any other: a run has to say so itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.self_checks import Check, Checks

# Nats a token. Alike models give logprobs alike to the last bits; half precision leaves two or three digits.
_LARGEST_IF_HELD_ALIKE = 1e-4
_TYPICAL = {"no": 1e-3, "half": 0.1}
_LARGEST_OF_SAMPLES = {"no": 1e-2, "half": 2.0}  # rare tokens round the most: found were 5e-5 and 0.15
_UNIT = "nats a token"


def require_no_kl(
    checks: Checks,
    where: str,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    policy: nn.Module,
    reference: nn.Module,
    step: int = 0,
) -> None:
    """Where the policy is a copy of its reference, no token has another logprob.

    So it is when a run begins with the SFT policy, and in every cycle that refreshes its reference.

    Shapes: (B, T) each. Units: nats.

    Raises:
        TrainingError: one has, by more than rounding explains; where both are not held in one precision, by more than
            that does.
    """
    gaps = (logprobs - ref_logprobs).abs()[mask]
    alike = {weight.dtype for weight in policy.parameters()} == {weight.dtype for weight in reference.parameters()}
    found = float(gaps.max()) if alike else _typical(gaps)
    measure, bound = ("largest", _LARGEST_IF_HELD_ALIKE) if alike else ("typical", _TYPICAL["half"])
    checks.hold(
        Check("reference", f"{measure} gap to the reference's logprobs", bound, _UNIT),
        found,
        where=where,
        fault="the policy is not its reference, from which it starts",
        do="the KL of this run would be wrong from the start: run `dvc repro --force sft`, and report it if it comes "
        "back",
        step=step,
    )


def require_sampled_alike(
    checks: Checks,
    where: str,
    sampled_logprobs: Tensor,
    logprobs: Tensor,
    mask: Tensor,
    precision: str,
    step: int = 0,
) -> None:
    """What the engine drew tokens with, one after the other, is what a forward pass over whole sequences gives them.

    Shapes: (B, T) each. Units: nats.

    Args:
        precision: as Accelerate names it; "no" is float32.
    Raises:
        TrainingError: by more than the precision explains.
    """
    kind = _kind(precision)
    gaps = (sampled_logprobs - logprobs)[mask]
    for name, measure, bound, found in (
        ("sampler", "typical", _TYPICAL[kind], _typical(gaps)),
        ("sampler_largest", "largest", _LARGEST_OF_SAMPLES[kind], float(gaps.abs().max())),
    ):
        checks.hold(
            Check(name, f"{measure} gap between the sampler's logprobs and the trainer's", bound, _UNIT),
            found,
            where=where,
            fault="the engine samples from another distribution than the one that is trained",
            do="the policy would learn from responses that it does not give: try language_model.attn_implementation: "
            "eager, and compute.accelerate_config with mixed_precision: no; if neither helps, report it",
            step=step,
        )


def require_ratio_one(checks: Checks, where: str, approx_kl: float, precision: str, step: int = 0) -> None:
    """In the first step after rollouts the policy gives its own samples the logprobs that were recorded of them.

    Args:
        approx_kl: mean of 0.5 * squared log-ratio over the step's tokens.
        precision: as Accelerate names it; "no" is float32.
    Raises:
        TrainingError: the root mean square of the log-ratio is above what the precision explains.
    """
    checks.hold(
        Check("ratio", "typical log-ratio in the first step after rollouts", _TYPICAL[_kind(precision)], _UNIT),
        math.sqrt(2 * approx_kl),
        where=where,
        fault="the policy that trains is not the one that was sampled from",
        do="try compute.accelerate_config with mixed_precision: no; if that does not help, report it",
        step=step,
    )


def _kind(precision: str) -> str:
    return "no" if precision == "no" else "half"


def _typical(gaps: Tensor) -> float:
    return float(torch.sqrt(gaps.square().mean()))
