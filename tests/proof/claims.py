"""A policy's figures beside the oracle's, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.worlds.randomwalks.oracle import (
    Outcome,
    RewardDistribution,
    behaviour,
    best_of_n,
    optimum,
    optimum_at_kl,
)
from tests.proof.measuring import Estimate, Samples, best_of, estimate
from tests.proof.stages import Trial

MAX_DISTANCE = 0.02  # in E[r], of SFT from the behaviour policy and of best of n from the oracle's
MIN_SHARE = 0.97  # of the optimum's objective
ERRORS = 3.0  # standard errors that chance may add
# Methods that are trained on the true reward and pay for KL: they must come near the optimum. Others only show how far.
_CLAIMED = ("ppo", "grpo", "rloo")


@dataclass(frozen=True)
class Exact:
    """The rewards of the behaviour policy, which the oracle starts from, and of the SFT policy, which methods do."""

    of_behaviour: RewardDistribution
    of_sft: RewardDistribution


@dataclass(frozen=True)
class Row:
    """One policy: what was measured, what the oracle says of its like, and whether each claim of it holds.

    Args:
        objective: E[r] - beta * KL; None without a beta.
        oracle: the behaviour policy for SFT, best of n for best of n, the optimum at beta for a method with a beta,
            and the optimum at the method's own KL for one without.
        share: of the oracle's objective.
        share_of_reachable: of the optimum's when the reference is the SFT policy as it is, with what it has not
            learned of the behaviour policy. No policy passes that.
        short_of_frontier: how much more E[r] the optimum has at the KL measured.
    """

    policy: str
    beta: float | None
    reward: Estimate
    kl: Estimate | None
    objective: Estimate | None
    oracle: Outcome
    share: Estimate | None
    share_of_reachable: float | None
    short_of_frontier: float | None
    claims: Mapping[str, bool]

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        named = {
            name: value._asdict() if isinstance(value, tuple) else value  # type: ignore[attr-defined]
            for name, value in vars(self).items()
        }
        return named | {"claims": dict(self.claims)}


def sft_row(samples: Samples, exact: Exact) -> Row:
    """The SFT policy against the behaviour policy that wrote its demonstrations."""
    reward, oracle = estimate(samples.rewards), behaviour(exact.of_behaviour)
    claim = f"within {MAX_DISTANCE:g} of the behaviour policy's E[r]"
    is_near = abs(reward.mean - oracle.reward) <= MAX_DISTANCE  # reason: a claim on learning, stated with its distance
    claims = {claim: is_near}
    return Row("sft", None, reward, estimate(samples.kl), None, oracle, None, None, None, claims)


def best_of_n_row(samples: Samples, n: int, exact: Exact) -> Row:
    """The best, by the true reward, of every n samples of the SFT policy."""
    reward, oracle = estimate(best_of(samples.rewards, n)), best_of_n(exact.of_behaviour, n)
    is_near = abs(reward.mean - oracle.reward) <= MAX_DISTANCE  # reason: a claim on learning, stated with its distance
    claims = {f"within {MAX_DISTANCE:g} of the oracle's E[r]": is_near}
    return Row(f"true best of {n}", None, reward, None, None, oracle, None, None, None, claims)


def trial_row(trial: Trial, samples: Samples, exact: Exact) -> Row:
    """A method against the optimum."""
    reward, kl = estimate(samples.rewards), estimate(samples.kl)
    frontier = optimum_at_kl(exact.of_behaviour, kl.mean)
    short = frontier.reward - reward.mean
    if trial.beta is None:
        return Row(trial.name, None, reward, kl, None, frontier, None, None, short, {})
    objective = estimate(samples.rewards - trial.beta * samples.kl)
    oracle = optimum(exact.of_behaviour, trial.beta)
    best = oracle.objective(trial.beta)
    share = Estimate(objective.mean / best, objective.error / best)
    reachable = optimum(exact.of_sft, trial.beta).objective(trial.beta)
    claims = {}
    if trial.method in _CLAIMED:
        claims = {
            f"at least {MIN_SHARE:.0%} of the optimum's objective": share.mean >= MIN_SHARE,
            "not above what can be reached": objective.mean <= reachable + ERRORS * objective.error,
        }
    of_reachable = objective.mean / reachable
    return Row(trial.name, trial.beta, reward, kl, objective, oracle, share, of_reachable, short, claims)
