"""What a run checks of itself at its first step, with gaps made by hand."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from components.alignment.first_step import require_no_kl, require_ratio_one, require_sampled_alike
from components.alignment.preferences.first_step import require_no_margin
from components.errors import TrainingError
from components.self_checks import Checks

MASK = torch.tensor([[True, True, False], [True, False, False]])
FLOAT, HALF = nn.Linear(1, 1), nn.Linear(1, 1).to(torch.bfloat16)


def gaps(first: float, padding: float = 0.0) -> torch.Tensor:
    return torch.tensor([[-1.0, -2.0 + first, padding], [-3.0, padding, padding]])


def test_no_gap_and_rounding_pass_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="proximal"):
        require_no_kl(Checks(), "ppo, iteration 1", gaps(0.0, 5.0), gaps(0.0), MASK, FLOAT, FLOAT)
    require_no_kl(Checks(), "ppo, iteration 1", gaps(5e-5), gaps(0.0), MASK, FLOAT, FLOAT)
    said = "ppo, iteration 1: largest gap to the reference's logprobs 0 nats a token (at most 0.0001)"
    assert caplog.messages == [said]


@pytest.mark.parametrize("gap", [-2e-4, 2e-4, float("nan")])
def test_a_gap_stops_the_run_and_is_said(gap: float) -> None:
    with pytest.raises(TrainingError, match="not its reference") as caught:
        require_no_kl(Checks(), "ppo, iteration 1", gaps(gap), gaps(0.0), MASK, FLOAT, FLOAT)
    assert caught.value.found == ("nan nats a token" if gap != gap else "0.0002 nats a token")
    assert caught.value.expected == "largest gap to the reference's logprobs: at most 0.0001 nats a token"


def test_a_reference_in_half_precision_may_round_more() -> None:
    """sqrt(0.17^2 / 3 tokens) = 0.098 nats, and 0.104 for 0.18."""
    require_no_kl(Checks(), "ppo, iteration 1", gaps(0.17), gaps(0.0), MASK, FLOAT, HALF)
    with pytest.raises(TrainingError) as caught:
        require_no_kl(Checks(), "ppo, iteration 1", gaps(0.18), gaps(0.0), MASK, FLOAT, HALF)
    assert caught.value.expected.startswith("typical gap")


@pytest.mark.parametrize(("precision", "most"), [("no", 1e-3), ("bf16", 0.1), ("fp16", 0.1)])
def test_ratios_are_one_but_for_the_precision(precision: str, most: float) -> None:
    require_ratio_one(Checks(), "ppo, iteration 1, step 1", 0.5 * (0.9 * most) ** 2, precision)
    for kl in (0.5 * (1.1 * most) ** 2, float("nan")):
        with pytest.raises(TrainingError, match="not the one that was sampled from") as caught:
            require_ratio_one(Checks(), "ppo, iteration 1, step 1", kl, precision)
        assert f"at most {most:g} nats" in caught.value.expected


@pytest.mark.parametrize(("precision", "most"), [("no", 1e-3), ("bf16", 0.1), ("fp16", 0.1)])
def test_the_sampler_may_differ_by_the_precision_alone(precision: str, most: float) -> None:
    """One of three tokens is off: its square over 3, of which the root. Of many, no single one by as much as that."""
    at_most = most * 3**0.5
    require_sampled_alike(Checks(), "ppo, iteration 2", gaps(0.99 * at_most, 7.0), gaps(0.0), MASK, precision)
    with pytest.raises(TrainingError, match="samples from another distribution") as caught:
        require_sampled_alike(Checks(), "ppo, iteration 2", gaps(1.01 * at_most), gaps(0.0), MASK, precision)
    assert caught.value.expected.startswith("typical gap")
    many = torch.ones(1, 1000, dtype=torch.bool)
    one_off = torch.zeros(1, 1000)
    one_off[0, 7] = 1.01 * (1e-2 if precision == "no" else 2.0)  # 0.3e-3 and 0.06 of the root of the mean square
    with pytest.raises(TrainingError, match="samples from another distribution") as caught:
        require_sampled_alike(Checks(), "ppo, iteration 2", one_off, torch.zeros(1, 1000), many, precision)
    assert caught.value.expected.startswith("largest gap")


@pytest.mark.parametrize(
    ("changes", "loss"),
    [({"loss": "sigmoid", "beta": 0.3, "label_smoothing": 0.2}, 0.69315),
     ({"loss": "ipo", "beta": 0.2, "label_smoothing": 0.0}, 6.25)],
)  # fmt: skip
def test_dpo_begins_at_the_loss_of_no_margin(tiny_params: object, changes: dict[str, object], loss: float) -> None:
    """ln 2 = 0.69315; 1 / (2 * 0.2)^2 = 6.25."""
    settings = tiny_params(method="dpo", dpo=changes).dpo  # type: ignore[operator]
    checks = Checks()
    require_no_margin(checks, 0.9e-4, loss, settings, "no")
    assert [row["times"] for row in checks.rows()] == [1, 1]
    with pytest.raises(TrainingError, match="not its reference") as caught:
        require_no_margin(checks, 1.1e-4, loss, settings, "no")
    assert caught.value.where == "dpo, iteration 1, step 1"
    for wrong in (1.002 * loss, 0.998 * loss, float("nan")):
        with pytest.raises(TrainingError, match="does not begin where it must"):
            require_no_margin(checks, 0.0, wrong, settings, "no")
