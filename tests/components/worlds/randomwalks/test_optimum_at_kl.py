"""The optimum within a KL."""

from __future__ import annotations

import pytest

from components.worlds.randomwalks.graph import make_graph
from components.worlds.randomwalks.oracle import (
    behaviour,
    behaviour_rewards,
    optimum,
    optimum_at_kl,
)

BETAS = (0.05, 0.1, 0.2, 1.0)


@pytest.mark.parametrize("beta", BETAS)
def test_the_optimum_of_a_kl_is_the_one_whose_beta_gives_that_kl(beta: float) -> None:
    distribution = behaviour_rewards(make_graph(1000))
    best = optimum(distribution, beta)
    assert optimum_at_kl(distribution, best.kl) == pytest.approx(best, abs=1e-9)


def test_the_optimum_of_a_kl_ends_at_the_reference_and_at_the_best_walks() -> None:
    distribution = behaviour_rewards(make_graph(1000))
    for kl in (0.0, -0.1):
        assert optimum_at_kl(distribution, kl) == pytest.approx(behaviour(distribution), abs=1e-5)
    best = distribution.rewards.max(axis=1).mean()
    assert optimum_at_kl(distribution, 50.0).reward == pytest.approx(best, abs=1e-9)
