"""PPO by its stage, on a known optimum: it comes near and does not pass; with a mistake planted it stays away.

What can be reached is counted from the SFT policy as it came out, so that a small SFT spoils nothing. Beta is high
enough for a policy that does not pay for its KL to stand out.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

from components.alignment.policy_gradient import credit
from components.alignment.ppo import learner as ppo
from components.config import load_params
from components.core.advantages import AdvantagesAndReturns, gae
from components.core.rewards import per_token_rewards
from components.place import Place
from tests.proof.claims import Row, trial_row
from tests.proof.measuring import sample
from tests.proof.stages import Trial, align

TRIAL = Trial("ppo", 0.3)
NEAR, AWAY = 0.85, 0.75  # of what can be reached; the SFT policy itself has a half


def proven(prepared: Any) -> Row:
    """PPO from the SFT policy on, measured."""
    policy = align(prepared.params, TRIAL)
    row = trial_row(TRIAL, sample(policy, load_params(Place().params), 100), prepared.exact)
    shutil.rmtree(policy.parents[1])
    return row


def kl_as_a_bonus(scores: Tensor, kl: Tensor, kl_coef: float, mask: Tensor) -> Tensor:
    return per_token_rewards(scores, -kl, kl_coef, mask)


def score_at_the_first_token(scores: Tensor, kl: Tensor, kl_coef: float, mask: Tensor) -> Tensor:
    rewards = per_token_rewards(torch.zeros_like(scores), kl, kl_coef, mask)
    return torch.cat([rewards[:, :1] + scores[:, None], rewards[:, 1:]], dim=1)


def baseline_that_has_seen_the_token(rewards: Tensor, values: Tensor, mask: Tensor, *rates: float) -> Any:
    later = torch.cat([values[:, 1:], values[:, -1:]], dim=1)
    found = gae(rewards, values, mask, *rates)
    return AdvantagesAndReturns(found.advantages + torch.where(mask, values - later, 0), found.returns)


def test_ppo_comes_near_the_optimum_and_does_not_pass_it(prepared: Any) -> None:
    row = proven(prepared)
    assert row.share_of_reachable is not None and row.share_of_reachable > NEAR
    assert row.claims["not above what can be reached"]


@pytest.mark.parametrize(
    ("module", "place", "mistake"),
    [
        (credit, "per_token_rewards", kl_as_a_bonus),
        (credit, "per_token_rewards", score_at_the_first_token),
        (ppo, "gae", baseline_that_has_seen_the_token),
    ],
)
def test_a_planted_mistake_shows(
    prepared: Any, monkeypatch: pytest.MonkeyPatch, module: Any, place: str, mistake: Any
) -> None:
    monkeypatch.setattr(module, place, mistake)
    row = proven(prepared)
    assert row.share_of_reachable is not None and row.share_of_reachable < AWAY
