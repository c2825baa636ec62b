from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.mismatch import importance_weights, share_moved

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

POLICY, ENGINE = [0.5, 0.3, 0.2], [0.25, 0.6, 0.15]


def log(*probabilities: float) -> torch.Tensor:
    return f64([[math.log(p) for p in probabilities]])


def every(logprobs: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(logprobs, dtype=torch.bool)


def test_weights_of_three_tokens():
    """0.5 / 0.25 = 2; 0.3 / 0.6 = 0.5; 0.2 / 0.04 = 5, which the cap makes 3."""
    weights = importance_weights(log(0.5, 0.3, 0.2), log(0.25, 0.6, 0.04), every(log(0.5, 0.3, 0.2)), 3.0)
    exactly(weights, f64([[2.0, 0.5, 3.0]]))


def test_equal_logprobs_have_weight_one():
    exactly(importance_weights(log(*POLICY), log(*POLICY), every(log(*POLICY)), 1.0), f64([[1.0, 1.0, 1.0]]))
    exactly(importance_weights(log(*POLICY), log(*POLICY), every(log(*POLICY)), 0.5), f64([[0.5, 0.5, 0.5]]))


def test_the_weighted_mean_is_that_of_the_policy():
    values = f64([[2.0, -1.0, 7.0]])
    weights = importance_weights(log(*POLICY), log(*ENGINE), every(log(*POLICY)), 100.0)
    exactly((f64([ENGINE]) * weights * values).sum(), f64(0.5 * 2 - 0.3 + 0.2 * 7))
    capped = importance_weights(log(*POLICY), log(*ENGINE), every(log(*POLICY)), 1.5)
    exactly((f64([ENGINE]) * capped * values).sum(), f64(0.25 * 1.5 * 2 - 0.3 + 0.15 * (0.2 / 0.15) * 7))


def test_nan_outside_the_mask_is_harmless():
    mask = torch.tensor([[True, False, False]])
    logprobs = f64([[math.log(0.4), math.nan, math.inf]]).requires_grad_()
    weights = importance_weights(logprobs, f64([[math.log(0.5), -1.0, math.nan]]), mask, 2.0)
    exactly(weights, f64([[0.8, 1.0, 1.0]]))
    assert not weights.requires_grad


def test_a_broken_logprob_makes_no_infinite_weight():
    engine = torch.tensor([[-300.0]])
    assert importance_weights(torch.tensor([[-1.0]]), engine, every(engine), 1e9).item() == pytest.approx(math.exp(20))


@pytest.mark.parametrize("cap", [0.0, -1.0])
def test_a_cap_has_to_leave_something(cap):
    with pytest.raises(ValueError, match="cap"):
        importance_weights(log(*POLICY), log(*POLICY), every(log(*POLICY)), cap)


def test_a_share_by_hand():
    """The trainer moved by (1, -2), the engine by (0.5, -1.5): (0.5 + 3) / (1 + 4) = 0.7."""
    before, own_before = f64([-4.0, -1.0]), f64([-4.25, -1.25])
    share = share_moved(before, f64([-3.5, -2.5]), own_before, f64([-3.25, -3.25]))
    assert share == pytest.approx(0.7, abs=1e-12)


def test_an_engine_that_stands_still_has_share_zero():
    stands = f64([-4.0, -1.0])
    assert share_moved(stands, stands, f64([-4.25, -1.25]), f64([-3.25, -3.25])) == 0.0


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2))
def test_a_constant_error_of_the_engine_changes_nothing(error):
    own_before, own_after = f64([-4.25, -1.25]), f64([-3.25, -3.25])
    share = share_moved(own_before + f64(error), own_after + f64(error), own_before, own_after)
    assert share == pytest.approx(1.0, abs=1e-12)


def test_without_a_move_there_is_no_share():
    stands = f64([-4.0, -1.0])
    with pytest.raises(ValueError, match="own_after"):
        share_moved(stands, stands, stands, stands)
