"""What must hold where DPO begins: the policy is its reference, so that no comparison has a margin."""

from __future__ import annotations

import math

from components.config import Dpo, OnlineDpo
from components.self_checks import Check, Checks

# Nats a token, on the mean over a response: alike models give logprobs alike to the last bits.
_GAP = {"no": 1e-4, "half": 0.05}
_LOSS = {"no": 1e-3, "half": 0.1}  # share of the loss
_FAULT = "the policy is not its reference, from which it starts"
_DO = "run `dvc repro --force sft`, and report it if it comes back"


def require_no_margin(checks: Checks, gap: float, loss: float, settings: Dpo | OnlineDpo, precision: str) -> None:
    """At step 0 the policy is a copy of its reference: its implicit rewards are 0, and the loss is known.

    -log sigmoid(0) = ln 2, whatever the label smoothing (Rafailov et al. 2023); ipo: 1 / (2 beta)^2 (Azar et al. 2023).

    Args:
        gap: the largest of any response between the policy's logprob and the reference's, in nats a token.
        loss: mean over the step's comparisons.
        precision: as Accelerate names it; "no" is float32.
    Raises:
        TrainingError: one of them is not what it must be, by more than the precision explains.
    """
    kind, where = "no" if precision == "no" else "half", "dpo, iteration 1, step 1"
    check = Check(
        "reference", "largest gap to the reference's logprobs, mean of a response", _GAP[kind], "nats a token"
    )
    checks.hold(check, gap, where=where, fault=_FAULT, do=_DO, step=1)
    expected = math.log(2.0) if settings.loss == "sigmoid" else 1.0 / (2.0 * settings.beta) ** 2
    checks.hold(
        Check("first_loss", f"distance of the loss from {expected:.4g}, that of no margin", _LOSS[kind], "of it"),
        abs(loss / expected - 1.0),
        where=where,
        fault="the loss of DPO does not begin where it must",
        do="report it: the loss is not the one that params name",
        step=1,
    )
