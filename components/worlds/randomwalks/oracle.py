"""The exact answers of the randomwalks task: what the best policies reach, for any graph, beta and n.

The reference is the behaviour policy: it goes to a uniformly drawn successor until it is at the goal or has ten
letters. A walk's reward depends on its start and length alone, so all that counts of a policy is how it spreads a
start's probability over the rewards; within one reward the policies below keep the reference's proportions. Means are
over a uniformly drawn start. All in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.errors import ConfigError
from components.worlds.randomwalks.graph import GOAL, MAX_LETTERS, Graph


class RewardDistribution(NamedTuple):
    """What the behaviour policy earns from each start, the best reward first.

    Shapes: both (starts, rewards); a row of probabilities sums to 1. A reward of probability 0 is written as 0.
    """

    rewards: NDArray[np.float64]
    probabilities: NDArray[np.float64]


class Outcome(NamedTuple):
    """What a policy reaches: mean reward, and KL(policy, behaviour policy) in nats per sequence."""

    reward: float
    kl: float

    def objective(self, beta: float) -> float:
        """E[reward] - beta * KL."""
        return self.reward - beta * self.kl


def behaviour_rewards(graph: Graph) -> RewardDistribution:
    """The behaviour policy's rewards, by dynamic programming over (node, letters).

    P(node reaches the goal with l + 1 letters) is the mean over its successors of P(successor reaches it with l), and
    so is the probability of not being there yet. Ten letters are worth as much as never: 0.
    """
    step = graph.adjacency / graph.adjacency.sum(axis=1, keepdims=True)
    step[GOAL] = 0.0  # the walk is over
    arrives = (np.arange(len(step)) == GOAL).astype(np.float64)
    is_under_way = 1.0 - arrives
    starts = list(graph.starts)
    probabilities, rewards = [], []
    for letters in range(2, MAX_LETTERS):
        arrives, is_under_way = step @ arrives, step @ is_under_way
        probabilities.append(arrives[starts])
        rewards.append([graph.optimality_of_length(start, letters) for start in starts])
    probabilities.append(is_under_way[starts])
    rewards.append([0.0] * len(starts))
    reached = np.stack(probabilities, axis=1)
    return RewardDistribution(np.where(reached > 0, np.array(rewards).T, 0.0), reached)


def behaviour(distribution: RewardDistribution) -> Outcome:
    """The behaviour policy itself: what a perfect SFT reaches."""
    return _outcome(distribution, distribution.probabilities)


def best_of_n(distribution: RewardDistribution, n: int) -> Outcome:
    """The best of n walks of the behaviour policy, exactly.

    With F the distribution function of the reward, P(best = r) = F(r)^n - F(below r)^n. Whichever of equal walks is
    taken, given its reward the walk is distributed as under the behaviour policy, so the KL is that of the rewards.

    Raises:
        ConfigError: n below 1.
    """
    if n < 1:
        raise ConfigError("best of n needs a walk to choose", where="n", expected="1 or more", found=str(n))
    at_most = np.cumsum(distribution.probabilities[:, ::-1], axis=1)[:, ::-1]
    at_most = at_most / at_most[:, :1]  # 1 but for rounding, which a large n would blow up
    below = np.hstack([at_most[:, 1:], np.zeros((len(at_most), 1))])
    return _outcome(distribution, at_most**n - below**n)


def best_of_n_kl_bound(n: int) -> float:
    """log n - (n - 1) / n, the KL in nats of the best of n when no two rewards are equal; ties make it less."""
    return math.log(n) - (n - 1) / n


def optimum(distribution: RewardDistribution, beta: float) -> Outcome:
    """The policy that no other beats in E[reward] - beta * KL(policy, behaviour policy).

    pi(walk) = pi_behaviour(walk) * exp(reward / beta) / Z(start); its objective is beta * E_start[log Z(start)].

    Raises:
        ConfigError: beta is not a positive, finite number.
    """
    if not (beta > 0 and math.isfinite(beta)):
        raise ConfigError(
            "the optimum needs a price of KL",
            where="beta",
            expected="a finite number above 0",
            found=str(beta),
        )
    best = distribution.rewards.max(axis=1, keepdims=True)  # taken out, so that no small beta overflows
    weights = distribution.probabilities * np.exp((distribution.rewards - best) / beta)
    return _outcome(distribution, weights / weights.sum(axis=1, keepdims=True))


def optimum_at_kl(distribution: RewardDistribution, kl: float) -> Outcome:
    """The highest E[reward] within a KL: the optimum at the beta where its KL is just that, found by bisection.

    Where no beta takes that much KL, the best walks are taken always; where it is 0 or less, the reference is left
    alone.
    """
    cheap, dear = math.log(1e-3), math.log(1e6)  # of beta; the KL falls from one to the other
    for _ in range(60):
        middle = (cheap + dear) / 2
        if optimum(distribution, math.exp(middle)).kl > kl:
            cheap = middle
        else:
            dear = middle
    return optimum(distribution, math.exp(dear))


def _outcome(distribution: RewardDistribution, probabilities: NDArray[np.float64]) -> Outcome:
    """Of a policy that keeps the reference's proportions within one reward."""
    taken = probabilities > 0
    ratio = np.divide(probabilities, distribution.probabilities, out=np.ones_like(probabilities), where=taken)
    kl = (probabilities * np.log(ratio)).sum(axis=1)
    reward = (probabilities * distribution.rewards).sum(axis=1)
    return Outcome(float(reward.mean()), max(0.0, float(kl.mean())))  # rounding may leave it just below 0
