"""The policy's own term of the objective, as `policy_loss` names it."""

from __future__ import annotations

from torch import Tensor

from components.config import PolicyGradientMethod
from components.core.losses import PolicyLoss, policy_loss
from components.core.policy_losses import cispo_loss, gspo_loss


def policy_term(
    settings: PolicyGradientMethod, new_logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> PolicyLoss:
    """The loss of each token, its ratio, and where it was clipped. Shapes: (B, T) each."""
    columns = new_logprobs, old_logprobs, advantages, mask
    low, high = settings.clip_range_low, settings.clip_range_high
    if settings.policy_loss == "cispo":
        return cispo_loss(*columns, clip_low=low, clip_high=high)
    assert low is not None, "the section refuses it"
    if settings.policy_loss == "gspo":
        return gspo_loss(*columns, clip_low=low, clip_high=high)
    return policy_loss(*columns, clip_low=low, clip_high=high, dual_clip=settings.dual_clip)
