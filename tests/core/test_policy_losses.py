"""Ratios of whole responses and weights that are held, on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from loss_inputs import INF, NAN, SEEDS, all_true, exactly, f64, normal, some_mask, surrogate
from torch.testing import assert_close

from components.core.policy_losses import cispo_loss, gspo_loss

RANGE = {"clip_low": 0.2, "clip_high": 0.2}
every_loss = pytest.mark.parametrize("loss", [gspo_loss, cispo_loss])


# GSPO
def test_gspo_of_two_responses():
    """Log ratios .1, .5, 0 have the mean .2: all three tokens have e^.2, clipped to 1.2 for A = 1. -1 alone is e^-1."""
    mask = torch.tensor([[True, True, True], [True, False, False]])
    new = f64([[-0.9, -0.5, -2.0], [-1.0, NAN, NAN]]).requires_grad_()
    old, advantages = f64([[-1.0, -1.0, -2.0], [0.0, NAN, NAN]]), f64([[1.0, 1.0, -2.0], [1.0, NAN, NAN]])
    result = gspo_loss(new, old, advantages, mask, **RANGE)
    s, t = math.exp(0.2), math.exp(-1)
    exactly(result.loss, f64([[-1.2, -1.2, 2 * s], [-t, 0.0, 0.0]]))
    exactly(result.ratio, f64([[s, s, s], [t, 1.0, 1.0]]))
    assert result.clipped.tolist() == [[True, True, False], [False, False, False]]
    (gradient,) = torch.autograd.grad(result.loss.sum(), new)
    exactly(gradient, f64([[0.0, 0.0, 2 * s], [-t, 0.0, 0.0]]))


def test_each_side_of_gspo_has_its_own_clip_range():
    """Ratios 1.0005, 1.0003, .9996 and .9998 in a range of 3e-4 and 4e-4, for A = 1, 1, -1, -1."""
    new = f64([[1.0005], [1.0003], [0.9996], [0.9998]]).log()
    advantages = f64([[1.0], [1.0], [-1.0], [-1.0]])
    result = gspo_loss(new, torch.zeros_like(new), advantages, all_true(new), clip_low=3e-4, clip_high=4e-4)
    exactly(result.loss, f64([[-1.0004], [-1.0003], [0.9997], [0.9998]]))
    assert result.clipped.flatten().tolist() == [True, False, True, False]


@given(seed=SEEDS)
def test_with_one_advantage_a_row_it_is_the_loss_of_sequences(seed):
    """The paper's equation 5, row by row in plain numbers, and its gradient by autograd through the mean itself."""
    new, old = (x.mul(0.5) for x in normal(seed, 4, 5, count=2))
    mask = some_mask(seed, 4, 5)
    mask[:, 0] = True
    of_rows = normal(seed + 1, 4)[0]
    new.requires_grad_()
    result = gspo_loss(new, old, of_rows[:, None].expand(4, 5), mask, **RANGE)
    means = result.loss.sum(dim=1) / mask.sum(dim=1)
    losses = []
    for row in range(4):
        ratio = (new[row][mask[row]] - old[row][mask[row]]).mean().exp()
        losses.append(torch.maximum(-of_rows[row] * ratio, -of_rows[row] * ratio.clamp(0.8, 1.2)))
    exactly(means, torch.stack(losses))
    expected = torch.autograd.grad(torch.stack(losses).sum(), new)
    exactly(torch.autograd.grad(means.sum(), new), expected)


@given(seed=SEEDS)
def test_of_one_token_it_is_ppo(seed):
    new, old, advantages = normal(seed, 6, 1, count=3)
    found, expected = (
        loss(new, old, advantages, all_true(new)) for loss in (surrogate, lambda *a: gspo_loss(*a, **RANGE))
    )
    exactly(found.loss, expected.loss)
    assert torch.equal(found.clipped, expected.clipped)


@given(seed=SEEDS)
def test_equal_policies_have_ratio_one_and_nothing_clipped(seed):
    logprobs, advantages = normal(seed, 3, 4, count=2)
    result = gspo_loss(logprobs, logprobs.clone(), advantages, all_true(advantages), **RANGE)
    assert (result.ratio == 1).all() and not result.clipped.any()
    assert torch.equal(result.loss, -advantages)


def test_the_mean_log_ratio_is_held_within_twenty():
    new = torch.tensor([[1000.0, 500.0], [-1000.0, -500.0]])
    advantages = torch.tensor([[-1.0, 1.0], [1.0, 1.0]])
    result = gspo_loss(new, torch.zeros_like(new), advantages, all_true(new), **RANGE)
    small = -math.exp(-20)
    assert_close(result.loss, torch.tensor([[math.exp(20), -1.2], [small, small]]), rtol=1e-6, atol=0)


# CISPO
def test_cispo_of_four_tokens():
    """Ratios e^.2 and e^.4 weigh 1.2, e^-1 weighs .8 and 1 itself: -w A new, with A = 1, 1, -2, -.5."""
    new, old = f64([[-1.0, -0.5, -2.0, -1.0]]), f64([[-1.2, -0.9, -1.0, -1.0]])
    result = cispo_loss(new, old, f64([[1.0, 1.0, -2.0, -0.5]]), all_true(new), **RANGE)
    exactly(result.loss, f64([[1.2, 0.6, -3.2, -0.5]]))
    exactly(result.ratio, f64([[math.exp(0.2), math.exp(0.4), math.exp(-1), 1.0]]))
    assert result.clipped.tolist() == [[True, True, True, False]]


def test_outside_the_range_the_gradient_is_held_and_not_zero():
    """-A times 1.2, 1.2, .8 and 1; without a bound below the third weighs e^-1."""
    new, old = f64([[-1.0, -0.5, -2.0, -1.0]]).requires_grad_(), f64([[-1.2, -0.9, -1.0, -1.0]])
    for clip_low, third in ((0.2, 0.8), (None, math.exp(-1))):
        result = cispo_loss(new, old, f64([[1.0, -1.0, -2.0, -0.5]]), all_true(new), clip_low=clip_low, clip_high=0.2)
        (gradient,) = torch.autograd.grad(result.loss.sum(), new)
        exactly(gradient, f64([[-1.2, 1.2, 2 * third, 0.5]]))
        assert result.clipped.tolist() == [[True, True, clip_low is not None, False]]


def test_each_side_of_cispo_has_its_own_clip_range():
    new = f64([[0.5, 1.5, 2.5]]).log()
    result = cispo_loss(new, torch.zeros_like(new), torch.ones_like(new), all_true(new), clip_low=0.4, clip_high=1.0)
    exactly(result.loss, f64([[-0.6 * math.log(0.5), -1.5 * math.log(1.5), -2.0 * math.log(2.5)]]))


@given(seed=SEEDS)
def test_within_the_range_the_gradient_is_that_of_the_unclipped_surrogate(seed):
    new, old, advantages = normal(seed, 3, 4, count=3)
    new.requires_grad_()
    found = cispo_loss(new, old, advantages, all_true(new), clip_low=None, clip_high=1e9).loss
    unclipped = -advantages * (new - old).exp()
    exactly(*(torch.autograd.grad(loss.sum(), new)[0] for loss in (found, unclipped)))


def test_the_weight_does_not_overflow():
    new = torch.tensor([[1000.0, -1000.0]])
    result = cispo_loss(new, torch.zeros_like(new), torch.ones_like(new), all_true(new), clip_low=None, clip_high=1e30)
    assert_close(result.loss, torch.tensor([[-1000 * math.exp(20), 1000 * math.exp(-20)]]), rtol=1e-6, atol=0)


# both
@every_loss
def test_advantages_and_old_logprobs_carry_no_gradient(loss):
    new, old, advantages = (x.requires_grad_() for x in normal(0, 2, 3, count=3))
    result = loss(new, old, advantages, all_true(new), **RANGE)
    assert not result.ratio.requires_grad
    gradients = torch.autograd.grad(result.loss.sum(), (new, old, advantages), allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False, True, True]


@every_loss
@given(seed=SEEDS)
def test_nan_outside_the_mask_is_harmless(loss, seed):
    mask = some_mask(seed, 3, 4)
    inputs = normal(seed, 3, 4, count=3)

    def found(outside: float):
        new, old, advantages = (torch.where(mask, x, outside) for x in inputs)
        new.requires_grad_()
        result = loss(new, old, advantages, mask, **RANGE)
        return result.loss.detach(), result.ratio, *torch.autograd.grad(result.loss.sum(), new)

    clean = found(0.0)
    assert (clean[0][~mask] == 0).all() and (clean[1][~mask] == 1).all() and (clean[2][~mask] == 0).all()
    for outside in (NAN, INF, 1e30):
        for got, expected in zip(found(outside), clean, strict=True):
            exactly(got, expected)


@every_loss
@pytest.mark.parametrize("changed", [{"clip_low": -0.1}, {"clip_low": 1.1}, {"clip_high": -0.1}])
def test_a_clip_range_that_cannot_work_is_refused(loss, changed):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=f"{next(iter(changed))}: expected"):
        loss(x, x, x, all_true(x), **(RANGE | changed))
