"""The oracle against hand-worked numbers, brute-force enumeration of walks, identities and sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import product
from random import Random

import numpy as np
import pytest

from components.errors import ConfigError
from components.worlds.randomwalks.generator import random_walk
from components.worlds.randomwalks.graph import Graph, letter_of, make_graph, optimality
from components.worlds.randomwalks.oracle import (
    behaviour,
    behaviour_rewards,
    best_of_n,
    best_of_n_kl_bound,
    optimum,
)

BETAS = (0.05, 0.1, 0.2, 1.0)


def enumerated(graph: Graph) -> list[list[tuple[float, float]]]:
    """(probability, reward) of every walk, start by start, from the adjacency alone."""
    edges = [np.flatnonzero(row).tolist() for row in graph.adjacency]
    starts = []
    for start in range(1, len(edges)):
        done, open_walks = [], [((start,), 1.0)]
        while open_walks:
            walk, probability = open_walks.pop()
            if walk[-1] == 0 or len(walk) == 10:
                done.append((walk, probability))
            else:
                open_walks += [((*walk, node), probability / len(edges[walk[-1]])) for node in edges[walk[-1]]]
        shortest = min([len(walk) for walk, _ in done if walk[-1] == 0], default=10)
        starts.append(
            [(p, (10 - len(walk)) / (10 - shortest) if walk[-1] == 0 and len(walk) < 10 else 0.0) for walk, p in done]
        )
    return starts


@cache
def small_graph(seed: int) -> Graph:
    """Three to six nodes with one or two successors each; now and then the goal is out of reach."""
    rng = Random(seed)
    size = rng.randint(3, 6)
    adjacency = np.zeros((size, size), dtype=bool)
    adjacency[0, 0] = True
    for node in range(1, size):
        others = [other for other in range(size) if other != node]
        adjacency[node, rng.sample(others, rng.choice((1, 2, 2)))] = True
    return Graph(adjacency)


SMALL = range(30)


@pytest.mark.parametrize("seed", SMALL)
def test_dynamic_programming_equals_enumeration(seed: int) -> None:
    distribution = behaviour_rewards(small_graph(seed))
    starts = enumerated(small_graph(seed))
    assert distribution.probabilities.sum(axis=1) == pytest.approx(np.ones(len(starts)), abs=1e-14)
    for probabilities, rewards, walks in zip(distribution.probabilities, distribution.rewards, starts, strict=True):
        for level in {reward for _, reward in walks}:
            at_level = probabilities[np.isclose(rewards, level, rtol=0, atol=1e-12)].sum()
            assert at_level == pytest.approx(sum(p for p, reward in walks if reward == level), abs=1e-14)
    mean = np.mean([sum(p * reward for p, reward in walks) for walks in starts])
    assert behaviour(distribution) == pytest.approx((mean, 0.0), abs=1e-14)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("seed", SMALL)
def test_the_optimum_equals_enumeration(seed: int, beta: float) -> None:
    rewards, kls, objectives = [], [], []
    for walks in enumerated(small_graph(seed)):
        partition = math.fsum(p * math.exp(reward / beta) for p, reward in walks)
        chosen = [p * math.exp(reward / beta) / partition for p, reward in walks]
        rewards.append(math.fsum(q * reward for q, (_, reward) in zip(chosen, walks, strict=True)))
        kls.append(math.fsum(q * math.log(q / p) for q, (p, _) in zip(chosen, walks, strict=True)))
        objectives.append(beta * math.log(partition))
    found = optimum(behaviour_rewards(small_graph(seed)), beta)
    assert found == pytest.approx((np.mean(rewards), np.mean(kls)), abs=1e-12)
    assert found.objective(beta) == pytest.approx(np.mean(objectives), abs=1e-12)


@pytest.mark.parametrize(("n", "most_walks", "graphs"), [(2, 60, 20), (3, 20, 15)])
def test_best_of_n_equals_enumeration_of_every_draw(n: int, most_walks: int, graphs: int) -> None:
    """On the graphs with few enough walks. Of walks that tie, the first one drawn is taken."""
    compared = 0
    for seed in SMALL:
        starts = enumerated(small_graph(seed))
        if max(map(len, starts)) > most_walks:
            continue
        rewards, kls = [], []
        for walks in starts:
            taken = [0.0] * len(walks)
            for draw in product(range(len(walks)), repeat=n):
                best = max(draw, key=[reward for _, reward in walks].__getitem__)
                taken[best] += math.prod(walks[walk][0] for walk in draw)
            rewards.append(math.fsum(q * reward for q, (_, reward) in zip(taken, walks, strict=True)))
            kls.append(math.fsum(q * math.log(q / p) for q, (p, _) in zip(taken, walks, strict=True)))
        found = best_of_n(behaviour_rewards(small_graph(seed)), n)
        assert found == pytest.approx((np.mean(rewards), np.mean(kls)), abs=1e-12)
        compared += 1
    assert compared >= graphs


def test_behaviour_worked_by_hand(four: Graph) -> None:
    """From b: ba 1/2, bcda 1/4, bcdba 1/8, bcdbcda 1/16, bcdbcdba 1/32, and 1/32 is worth nothing."""
    distribution = behaviour_rewards(four)
    assert distribution.probabilities[0] == pytest.approx([1 / 2, 0, 1 / 4, 1 / 8, 0, 1 / 16, 1 / 32, 0, 1 / 32])
    assert distribution.rewards[0] == pytest.approx([1, 0, 6 / 8, 5 / 8, 0, 3 / 8, 2 / 8, 0, 0])
    from_b = 0.5 + 0.75 / 4 + 0.625 / 8 + 0.375 / 16 + 0.25 / 32
    from_c = 0.5 + (6 / 4 + 4 / 8 + 3 / 16 + 1 / 32) / 7  # cda, cdba, cdbcda, cdbcdba, cdbcdbcda
    from_d = 0.5 + (7 / 4 + 5 / 8 + 4 / 16 + 2 / 32 + 1 / 64) / 8  # da, dba, dbcda, dbcdba, dbcdbcda, dbcdbcdba
    assert behaviour(distribution).reward == pytest.approx((from_b + from_c + from_d) / 3, abs=1e-15)


def test_optimum_and_best_of_two_worked_by_hand(drawn: Callable[[str], Graph]) -> None:
    """From b: ba and bca, each 1/2, worth 1 and 7/8. From c: ca alone."""
    distribution = behaviour_rewards(drawn("ba bc ca"))
    two = best_of_n(distribution, 2)
    assert two.reward == pytest.approx((3 / 4 * 1 + 1 / 4 * 7 / 8 + 1) / 2, abs=1e-15)
    assert two.kl == pytest.approx((3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)) / 2, abs=1e-15)
    beta = 1 / (8 * math.log(3))  # so that exp((1 - 7/8) / beta) = 3: ba gets 3/4 here too
    assert optimum(distribution, beta) == pytest.approx(two, abs=1e-14)


def test_a_graph_without_a_way_to_the_goal(drawn: Callable[[str], Graph]) -> None:
    distribution = behaviour_rewards(drawn("bc cb cd dc"))
    assert behaviour(distribution) == best_of_n(distribution, 8) == optimum(distribution, 0.1) == (0.0, 0.0)


@pytest.mark.parametrize("seed", [1000, 1002, 1004])
def test_the_objective_lies_between_its_limits(seed: int) -> None:
    """It falls from the mean of each start's best reward to the behaviour policy's mean reward as beta grows."""
    graph = make_graph(seed)
    distribution = behaviour_rewards(graph)
    plain = behaviour(distribution).reward
    best = np.mean([graph.is_solvable(start) for start in graph.starts])  # 1 wherever the goal is in reach
    betas = [1e-6, 1e-3, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 1e6]
    objectives = [optimum(distribution, beta).objective(beta) for beta in betas]
    assert objectives == sorted(objectives, reverse=True)
    assert all(plain < objective < best for objective in objectives)
    assert objectives[0] == pytest.approx(best, abs=2e-5)  # beta times a KL of a few nats
    assert objectives[-1] == pytest.approx(plain, abs=1e-6)
    tiny = optimum(distribution, 1e-300)
    assert tiny.reward == pytest.approx(best, abs=1e-12)
    assert math.isfinite(tiny.kl)


@pytest.mark.parametrize("beta", BETAS)
def test_the_slope_of_the_objective_is_minus_the_kl(beta: float) -> None:
    distribution = behaviour_rewards(make_graph(1000))
    step = 1e-5 * beta
    above, below = (optimum(distribution, b).objective(b) for b in (beta + step, beta - step))
    assert (above - below) / (2 * step) == pytest.approx(-optimum(distribution, beta).kl, abs=1e-7)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("size", [0.1, 1.0])
def test_no_other_policy_beats_the_optimum(beta: float, size: float, four: Graph) -> None:
    """Policies over single walks, near the optimum and far from it."""
    rng = np.random.default_rng(3)
    best = optimum(behaviour_rewards(four), beta).objective(beta)

    def objective(size: float) -> float:
        values = []
        for walks in enumerated(four):
            p, r = np.array(walks).T
            q = p * np.exp(r / beta + size * rng.standard_normal(len(p)))
            q /= q.sum()
            values.append(q @ r - beta * q @ np.log(q / p))
        return float(np.mean(values))

    assert objective(0.0) == pytest.approx(best, abs=1e-13)
    assert all(objective(size) < best - 1e-10 for _ in range(50))


@pytest.mark.parametrize("seed", [1000, 1002])
def test_best_of_n_rises_from_the_behaviour_policy_to_the_best(seed: int) -> None:
    distribution = behaviour_rewards(make_graph(seed))
    assert best_of_n(distribution, 1) == pytest.approx(behaviour(distribution), abs=1e-15)
    ns = [1, 2, 3, 4, 8, 16, 64, 1000, 10**9]
    outcomes = [best_of_n(distribution, n) for n in ns]
    rewards, kls = zip(*outcomes, strict=True)
    assert list(rewards) == sorted(rewards) and list(kls) == sorted(kls)
    assert all(kl <= best_of_n_kl_bound(n) + 1e-15 for n, kl in zip(ns, kls, strict=True))
    assert rewards[-1] == pytest.approx(distribution.rewards.max(axis=1).mean(), abs=1e-12)
    for beta in BETAS:
        ceiling = optimum(distribution, beta).objective(beta)
        assert all(outcome.objective(beta) < ceiling for outcome in outcomes)


def test_the_bound_of_best_of_n() -> None:
    assert best_of_n_kl_bound(1) == 0.0
    assert best_of_n_kl_bound(4) == pytest.approx(1.386294361 - 0.75, abs=1e-9)


def test_sampled_walks_agree_with_the_oracle() -> None:
    """Four standard errors, for the behaviour policy, best of 4, and the optimum by importance weights."""
    graph, rng, beta = make_graph(1000), Random(5), 0.2
    plain, best, tilted = [], [], []
    for start in graph.starts:
        walks = ["".join(map(letter_of, random_walk(graph, start, rng))) for _ in range(400)]
        rewards = np.array([optimality(walk, graph) for walk in walks])
        groups = rewards.reshape(-1, 4).max(axis=1)
        weights = np.exp(rewards / beta)
        plain.append((rewards.mean(), rewards.var() / len(rewards)))
        best.append((groups.mean(), groups.var() / len(groups)))
        tilted.append((beta * np.log(weights.mean()), beta**2 * weights.var() / weights.mean() ** 2 / len(weights)))
    distribution = behaviour_rewards(graph)
    expected = (
        behaviour(distribution).reward,
        best_of_n(distribution, 4).reward,
        optimum(distribution, beta).objective(beta),
    )
    for sampled, exact in zip((plain, best, tilted), expected, strict=True):
        means, variances = np.array(sampled).T
        error = math.sqrt(variances.sum()) / len(means)
        assert error < 0.02
        assert abs(means.mean() - exact) < 4 * error  # reason: four standard errors


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_a_beta_that_prices_nothing_is_refused(beta: float, four: Graph) -> None:
    with pytest.raises(ConfigError, match="price of KL"):
        optimum(behaviour_rewards(four), beta)


def test_best_of_none_is_refused(four: Graph) -> None:
    with pytest.raises(ConfigError, match="needs a walk"):
        best_of_n(behaviour_rewards(four), 0)
