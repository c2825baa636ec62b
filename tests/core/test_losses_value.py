"""The losses of values: clipped squares for PPO, expectiles for Q-learning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_inputs import SEEDS, all_true, exactly, f64, normal

from components.core.losses import expectile_loss, value_loss


def test_value_loss_of_two_tokens():
    """Both squares are (1/2)^2; the second value is clipped to .6, whose square .16 is the smaller one."""
    values, old = f64([[0.5, 1.5]]), f64([[0.4, 0.4]])
    result = value_loss(values, old, f64([[1.0, 1.0]]), all_true(values), value_clip_range=0.2)
    exactly(result.loss, f64([[0.125, 0.125]]))
    assert result.clipped.tolist() == [[False, False]]


def test_a_value_that_ran_ahead_is_clipped_and_gets_no_gradient():
    """V 1.5, held at .6, return 2: 1/2 1.4^2 = .98, not .125. V -1, held at .2, return -1: .72, not 0."""
    values, old = f64([[1.5, -1.0, 0.5]]).requires_grad_(), f64([[0.4, 0.4, 0.4]])
    result = value_loss(values, old, f64([[2.0, -1.0, 1.0]]), all_true(values), value_clip_range=0.2)
    exactly(result.loss, f64([[0.98, 0.72, 0.125]]))
    assert result.clipped.tolist() == [[True, True, False]]
    exactly(torch.autograd.grad(result.loss.sum(), values)[0], f64([[0.0, 0.0, -0.5]]))


def test_without_a_clip_range_it_is_half_the_square():
    values, old, returns = f64([[3.0, -1.0]]), f64([[0.0, 0.0]]), f64([[1.0, 0.0]])
    result = value_loss(values, old, returns, all_true(values), value_clip_range=None)
    exactly(result.loss, f64([[2.0, 0.5]]))
    assert result.clipped.tolist() == [[False, False]]


@given(seed=SEEDS)
def test_within_the_clip_range_nothing_is_clipped(seed):
    values, old, returns = normal(seed, 3, 4, count=3)
    wide = (values - old).abs().max().item() + 0.01
    result = value_loss(values, old, returns, all_true(values), value_clip_range=wide)
    unclipped = value_loss(values, old, returns, all_true(values), value_clip_range=None)
    assert torch.equal(result.loss, unclipped.loss) and not result.clipped.any()


@given(seed=SEEDS, value_clip_range=st.floats(0.01, 2))
def test_the_clipped_loss_is_never_below_the_unclipped(seed, value_clip_range):
    values, old, returns = normal(seed, 3, 4, count=3)
    result = value_loss(values, old, returns, all_true(values), value_clip_range=value_clip_range)
    unclipped = 0.5 * (values - returns) ** 2
    assert (result.loss >= unclipped).all()
    assert torch.equal(result.clipped, result.loss > unclipped)


def test_returns_and_old_values_carry_no_gradient():
    values, old, returns = (x.requires_grad_() for x in normal(0, 2, 3, count=3))
    loss = value_loss(values, old, returns, all_true(values), value_clip_range=0.2).loss.sum()
    gradients = torch.autograd.grad(loss, (values, old, returns), allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False, True, True]


def test_a_value_clip_range_is_above_zero():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="value_clip_range: expected a number above 0"):
        value_loss(x, x, x, all_true(x), value_clip_range=0.0)


# Q-learning
def test_expectile_loss_weighs_the_two_sides():
    exactly(expectile_loss(f64([2.0, -2.0, 0.0, 0.5]), 0.8), f64([3.2, 0.8, 0.0, 0.2]))


@given(seed=SEEDS)
def test_tau_one_half_is_half_the_square(seed):
    (diff,) = normal(seed, 6)
    exactly(expectile_loss(diff, 0.5), 0.5 * diff * diff)


@pytest.mark.parametrize(("tau", "expectile"), [(0.1, 1.0), (0.5, 11 / 3), (0.9, 91 / 11)])
def test_the_minimiser_rises_with_tau(tau, expectile):
    """Of 0, 1, 10: tau (10 - m) = (1 - tau) (m + m - 1), so m = (1 + 8 tau) / (2 - tau), for 1 <= m <= 10.

    tau .1 gives 1.9 / 1.9; tau .9 gives 9.1 / 1.1; and tau .5 the mean.
    """
    prediction = f64(expectile).requires_grad_()
    # expectile_loss is not differentiable twice at 0, but its slope there is 0 from both sides
    loss = expectile_loss(f64([0.0, 1.0, 10.0]) - prediction, tau).sum()
    exactly(torch.autograd.grad(loss, prediction)[0], f64(0.0))


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_tau_is_between_zero_and_one(tau):
    with pytest.raises(ValueError, match="tau: expected 0 .. 1, both excluded"):
        expectile_loss(torch.ones(1), tau)
