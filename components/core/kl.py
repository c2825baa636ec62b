"""How far the policy is from the reference policy, from samples, and the controller that holds it there."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from components.core.checks import LARGEST_LOG_RATIO, require, require_same_shape
from components.errors import TrainingError

KlEstimator = Literal["k1", "k2", "k3"]

_LARGEST_KL_ERROR = 0.2


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KlEstimator) -> Tensor:
    """Estimate of KL(policy, reference) per token, from tokens that the policy sampled.

    With d = log pi - log pi_ref (Schulman, "Approximating KL divergence", 2020):
    k1 = d,  k2 = d^2 / 2,  k3 = exp(-d) - 1 + d.

    k1 and k3 are unbiased; k1 can be negative for one token, which is right: do not clamp it. For KL in the
    reward use k1. For KL in the loss the expected gradient of k1 is 0, that of k2 is the gradient of KL(pi,
    pi_ref), and that of k3 the gradient of the other direction, KL(pi_ref, pi): of one token, given what was
    written before it; what a token does to the KL of later tokens is only seen in the reward. In k3 d is held
    within -20 .. 20, all of it, as verl and OpenRLHF do: with the exponent alone held, the gradient beyond it
    would be that of the other term, +1, and drive the policy away from the reference.

    Shapes: logprobs and ref_logprobs (B, T) -> (B, T).
    Units: nats per token.
    Raises: ValueError for differing shapes or an unknown estimator.

    Holds:
        k1_and_k3_are_unbiased: E_pi[k1] = E_pi[k3] = KL(pi, pi_ref), by enumeration.
        k3_is_never_negative: nor is k2.
        gradient_of_k3_is_never_of_the_wrong_sign: below the reference it is not above 0; beyond the limit it is 0.
        gradient_of_k1_in_the_loss_is_not_that_of_kl: its expectation is 0.
        gradient_of_k2_in_the_loss_is_that_of_kl: of KL(pi, pi_ref), by enumeration.
        gradient_of_k3_in_the_loss_is_that_of_the_other_kl: of KL(pi_ref, pi), by enumeration.
    """
    require_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    difference = logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    if estimator == "k3":
        held = difference.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        return (-held).expm1() + held
    raise ValueError(f"estimator: expected k1, k2 or k3, found {estimator!r}")


def best_of_n_kl(n: int) -> float:
    """KL of the best of n samples from the distribution they were drawn from: log n - (n - 1) / n, at most.

    Exact where no two samples have one score (Stiennon et al. 2020, appendix G.3); ties only make it less (Beirami
    et al. 2024, theorem 1).

    Units: nats per sequence.
    Raises: ValueError for an n below 1.

    Holds:
        best_of_one_is_no_choice: n = 1 gives 0.
        many_distinct_scores_reach_the_bound: the exact KL of the best of n equally likely ones, by enumeration.
        ties_stay_below_the_bound: the exact KL of any discrete distribution, by enumeration.
    """
    require(n >= 1, "n", expected="at least one sample", found=n)
    return math.log(n) - (n - 1) / n


def next_kl_coef(kl_coef: float, kl: float, *, target_kl: float, horizon: float, batch_size: int) -> float:
    """The KL coefficient after a batch, held towards a target by a proportional controller.

    error = clip(kl / target_kl - 1, -0.2, 0.2),  next = kl_coef * (1 + error * batch_size / horizon)
    (Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2). Called once a
    rollout batch, not once an epoch.

    Units: kl and target_kl in nats per SEQUENCE (the sum over its tokens, averaged over the batch), never per
    token; horizon and batch_size in sequences.
    Raises: ValueError for a target_kl, horizon or batch_size that is not above 0, a negative kl_coef, or
    0.2 * batch_size >= horizon, with which the coefficient could reach 0 or turn negative; TrainingError for
    a kl that is not finite.

    Holds:
        on_target_the_coefficient_stays: kl = target_kl changes nothing.
        far_from_the_target_the_step_is_capped: at 20 % of batch_size / horizon, both ways.
    """
    require(kl_coef >= 0, "kl_coef", expected="a number not below 0", found=kl_coef)
    require(target_kl > 0, "target_kl", expected="nats per sequence above 0", found=target_kl)
    require(batch_size > 0, "batch_size", expected="at least one sequence", found=batch_size)
    require(
        horizon > _LARGEST_KL_ERROR * batch_size,
        "horizon",
        expected=f"more than 0.2 * batch_size = {_LARGEST_KL_ERROR * batch_size:g}",
        found=horizon,
    )
    if not math.isfinite(kl):
        raise TrainingError(
            "the KL of the batch is not finite",
            where="kl",
            expected="nats per sequence",
            found=str(kl),
            do="look at the logprobs of the rollout; go on from the last good checkpoint, more slowly",
        )
    error = min(max(kl / target_kl - 1, -_LARGEST_KL_ERROR), _LARGEST_KL_ERROR)
    return kl_coef * (1 + error * batch_size / horizon)
