"""What a run checks of itself at its first step, with gaps made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.alignment.policy_gradient.first_step import require_no_kl, require_ratio_one
from components.errors import TrainingError

MASK = torch.tensor([[True, True, False], [True, False, False]])
FLOAT, HALF = nn.Linear(1, 1), nn.Linear(1, 1).to(torch.bfloat16)


def gaps(first: float, padding: float = 0.0) -> torch.Tensor:
    return torch.tensor([[-1.0, -2.0 + first, padding], [-3.0, padding, padding]])


def test_no_gap_and_rounding_pass_and_are_told() -> None:
    told = require_no_kl("ppo, iteration 1", gaps(0.0, 5.0), gaps(0.0), MASK, FLOAT, FLOAT)
    require_no_kl("ppo, iteration 1", gaps(5e-5), gaps(0.0), MASK, FLOAT, FLOAT)
    assert told == "ppo, iteration 1: largest gap to the reference's logprobs 0 nats (at most 0.0001)"


@pytest.mark.parametrize("gap", [-2e-4, 2e-4, float("nan")])
def test_a_gap_stops_the_run_and_is_said(gap: float) -> None:
    with pytest.raises(TrainingError, match="not its reference") as caught:
        require_no_kl("ppo, iteration 1", gaps(gap), gaps(0.0), MASK, FLOAT, FLOAT)
    assert caught.value.found == ("nan nats" if gap != gap else "0.0002 nats")


def test_a_reference_in_half_precision_may_round_more() -> None:
    """sqrt(0.17^2 / 3 tokens) = 0.098 nats, and 0.104 for 0.18."""
    require_no_kl("ppo, iteration 1", gaps(0.17), gaps(0.0), MASK, FLOAT, HALF)
    with pytest.raises(TrainingError, match="a typical gap"):
        require_no_kl("ppo, iteration 1", gaps(0.18), gaps(0.0), MASK, FLOAT, HALF)


@pytest.mark.parametrize(("precision", "most"), [("no", 1e-3), ("bf16", 0.1), ("fp16", 0.1)])
def test_ratios_are_one_but_for_the_precision(precision: str, most: float) -> None:
    require_ratio_one("ppo, iteration 1, step 1", 0.5 * (0.9 * most) ** 2, precision)
    for kl in (0.5 * (1.1 * most) ** 2, float("nan")):
        with pytest.raises(TrainingError, match="not the one that was sampled from") as caught:
            require_ratio_one("ppo, iteration 1, step 1", kl, precision)
        assert f"at most {most:g} nats" in caught.value.expected
