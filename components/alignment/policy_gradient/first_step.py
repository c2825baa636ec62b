"""What must hold when a run begins to move: the policy is its reference, and trains on what it sampled.

Where one of them does not hold, curves look like any other: a run has to say so itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.errors import TrainingError

# Nats a token. Alike models give logprobs alike to the last bits; half precision leaves two or three digits.
_LARGEST_IF_HELD_ALIKE = 1e-4
_TYPICAL = {"no": 1e-3, "half": 0.1}


def require_no_kl(
    where: str, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, policy: nn.Module, reference: nn.Module
) -> str:
    """At step 0 the policy is a copy of its reference, so that no token has another logprob.

    Shapes: (B, T) each. Units: nats.

    Returns:
        What was found, for people.
    Raises:
        TrainingError: it has, by more than rounding explains; where both are not held in one precision, by more than
            that does.
    """
    gaps = (logprobs - ref_logprobs).abs()[mask]
    alike = {weight.dtype for weight in policy.parameters()} == {weight.dtype for weight in reference.parameters()}
    found = float(gaps.max()) if alike else _typical(gaps)
    measure, bound = ("largest", _LARGEST_IF_HELD_ALIKE) if alike else ("typical", _TYPICAL["half"])
    if not found <= bound:
        raise TrainingError(
            "the policy is not its reference, from which it starts",
            where=where,
            expected=f"a {measure} gap between the logprobs of a token of at most {bound:g} nats",
            found=f"{found:.3g} nats",
            do="the KL of this run would be wrong from the start: run `dvc repro --force sft`, and report it if it "
            "comes back",
        )
    return f"{where}: {measure} gap to the reference's logprobs {found:.2g} nats (at most {bound:g})"


def require_ratio_one(where: str, approx_kl: float, precision: str) -> None:
    """In the first step after rollouts the policy gives its own samples the logprobs that were recorded of them.

    Args:
        approx_kl: mean of 0.5 * squared log-ratio over the step's tokens.
        precision: as Accelerate names it; "no" is float32.
    Raises:
        TrainingError: the root mean square of the log-ratio is above what the precision explains.
    """
    found, bound = math.sqrt(2 * approx_kl), _TYPICAL["no" if precision == "no" else "half"]
    if not found <= bound:
        raise TrainingError(
            "the policy that trains is not the one that was sampled from",
            where=where,
            expected=f"ratios of 1: a typical log-ratio of at most {bound:g} nats a token",
            found=f"{found:.3g} nats",
            do="try compute.accelerate_config with mixed_precision: no; if that does not help, report it",
        )


def _typical(gaps: Tensor) -> float:
    return float(torch.sqrt(gaps.square().mean()))
