"""Rows and claims on samples made by hand, at the edges where a claim turns."""

from __future__ import annotations

import numpy as np
import pytest

from components.worlds.randomwalks.graph import make_graph
from components.worlds.randomwalks.oracle import behaviour, behaviour_rewards, best_of_n, optimum
from tests.proof.claims import Exact, best_of_n_row, sft_row, trial_row
from tests.proof.measuring import Samples
from tests.proof.stages import Trial

BETA = 0.2
DISTRIBUTION = behaviour_rewards(make_graph(1000))
EXACT = Exact(DISTRIBUTION, DISTRIBUTION)  # a perfect SFT
BEST = optimum(DISTRIBUTION, BETA)


def samples(reward: float, kl: float) -> Samples:
    """Rewards spread evenly around their mean, a KL that is the same everywhere."""
    spread = np.tile([-0.1, 0.1], (20, 50))
    return Samples(reward + spread, np.full((20, 100), kl))


@pytest.mark.parametrize(("distance", "holds"), [(0.019, True), (-0.019, True), (0.021, False), (-0.021, False)])
def test_sft_lands_near_the_behaviour_policy(distance: float, holds: bool) -> None:
    row = sft_row(samples(behaviour(DISTRIBUTION).reward + distance, 0.0), EXACT)
    assert list(row.claims.values()) == [holds]


@pytest.mark.parametrize(("distance", "holds"), [(0.0, True), (0.03, False), (-0.03, False)])
def test_best_of_n_is_the_oracles(distance: float, holds: bool) -> None:
    """Of two samples, one 0.1 below the mean and one above it, the better one counts."""
    row = best_of_n_row(samples(best_of_n(DISTRIBUTION, 2).reward - 0.1 + distance, 0.0), 2, EXACT)
    assert row.reward.mean == pytest.approx(best_of_n(DISTRIBUTION, 2).reward + distance, abs=1e-12)
    assert list(row.claims.values()) == [holds] and row.kl is None


@pytest.mark.parametrize(("share", "enough"), [(0.971, True), (0.969, False)])
def test_ppo_has_its_share_of_the_optimum(share: float, enough: bool) -> None:
    reward = share * BEST.objective(BETA) + BETA * BEST.kl
    row = trial_row(Trial("ppo", BETA), samples(reward, BEST.kl), EXACT)
    assert row.share is not None and row.share.mean == pytest.approx(share, abs=1e-9)
    assert row.share_of_reachable == pytest.approx(share, abs=1e-9)
    assert row.short_of_frontier == pytest.approx(BEST.reward - reward, abs=1e-6)
    assert row.claims == {"at least 97% of the optimum's objective": enough, "not above what can be reached": True}


@pytest.mark.parametrize(("errors", "honest"), [(2.9, True), (3.1, False)])
def test_more_than_the_optimum_is_not_believed(errors: float, honest: bool) -> None:
    """The standard error of 100 samples a start, each 0.1 off the mean: 0.1 / sqrt(99) / sqrt(20)."""
    error = 0.1 / 99**0.5 / 20**0.5
    row = trial_row(Trial("ppo", BETA), samples(BEST.reward + errors * error, BEST.kl), EXACT)
    assert row.claims["not above what can be reached"] is honest


def test_a_method_without_a_price_is_held_against_the_optimum_of_its_kl() -> None:
    row = trial_row(Trial("grpo", None), samples(BEST.reward - 0.05, BEST.kl), EXACT)
    assert row.oracle == pytest.approx(BEST, abs=1e-9)
    assert row.short_of_frontier == pytest.approx(0.05, abs=1e-9)
    assert (row.objective, row.share, row.share_of_reachable, row.claims) == (None, None, None, {})
