"""The surrogate: ratios clipped on either side, twice for a bad token, and no gradient beyond."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_inputs import NAN, SEEDS, all_true, exactly, f64, normal, surrogate
from torch.testing import assert_close

from components.core.losses import policy_loss


def test_surrogate_of_four_tokens():
    """Ratios e^.2 and e^.4 are clipped to 1.2, e^-1 to .8, and 1 is not; A = 1, 1, -2, -.5."""
    new, old = f64([[-1.0, -0.5, -2.0, -1.0]]), f64([[-1.2, -0.9, -1.0, -1.0]])
    result = surrogate(new, old, f64([[1.0, 1.0, -2.0, -0.5]]), all_true(new))
    exactly(result.loss, f64([[-1.2, -1.2, 1.6, 0.5]]))
    exactly(result.ratio, f64([[math.exp(0.2), math.exp(0.4), math.exp(-1), 1.0]]))
    assert result.clipped.tolist() == [[True, True, True, False]]


def test_the_pessimistic_branch_is_taken_on_either_side():
    """Ratio 2 and 1/2 with A = +1 and -1, clipped to 1.2 and .8: the larger of the two losses."""
    log2 = math.log(2)
    new = f64([[log2, log2, -log2, -log2]])
    result = surrogate(new, torch.zeros_like(new), f64([[1.0, -1.0, 1.0, -1.0]]), all_true(new))
    exactly(result.loss, f64([[-1.2, 2.0, -0.5, 0.8]]))
    assert result.clipped.tolist() == [[True, False, False, True]]


def test_outside_the_clip_range_the_gradient_is_zero():
    log2 = math.log(2)
    new = f64([[log2, log2, -log2, -log2, 0.0]]).requires_grad_()
    advantages = f64([[1.0, -1.0, 1.0, -1.0, 3.0]])
    result = surrogate(new, torch.zeros_like(new), advantages, all_true(new))
    (gradient,) = torch.autograd.grad(result.loss.sum(), new)
    exactly(gradient, f64([[0.0, 2.0, -0.5, 0.0, -3.0]]))


def test_each_side_has_its_own_clip_range():
    """low .2, high .28: ratio 1.25 passes, 1.3 is held at 1.28; .75 is held at .8."""
    new = f64([[1.25, 1.3, 0.75]]).log()
    result = policy_loss(
        new,
        torch.zeros_like(new),
        f64([[1.0, 1.0, -1.0]]),
        all_true(new),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=None,
    )
    exactly(result.loss, f64([[-1.25, -1.28, 0.8]]))
    assert result.clipped.tolist() == [[False, True, True]]


def test_dual_clip_bounds_the_loss_of_a_bad_token():
    """A = -1 and log ratio 2: e^2 = 7.389, held at 3. Positive advantages and small ratios stay."""
    new = f64([[2.0, 2.0, math.log(0.1), math.log(2.5)]])
    arguments = new, torch.zeros_like(new), f64([[-1.0, 1.0, -1.0, -2.0]]), all_true(new)
    exactly(surrogate(*arguments).loss, f64([[math.exp(2), -1.2, 0.8, 5.0]]))
    dual = policy_loss(*arguments, clip_low=0.2, clip_high=0.2, dual_clip=3.0)
    exactly(dual.loss, f64([[3.0, -1.2, 0.8, 5.0]]))
    assert torch.equal(dual.clipped, surrogate(*arguments).clipped)


def test_the_log_ratio_is_held_within_twenty():
    new = torch.tensor([[1000.0, 1000.0, -1000.0]])
    result = surrogate(new, torch.zeros_like(new), torch.tensor([[-1.0, 1.0, 1.0]]), all_true(new))
    expected = torch.tensor([[math.exp(20), -1.2, -math.exp(-20)]])
    assert_close(result.loss, expected, rtol=1e-6, atol=0)


@given(seed=SEEDS)
def test_equal_policies_have_ratio_one_and_nothing_clipped(seed):
    logprobs, advantages = normal(seed, 3, 4, count=2)
    result = surrogate(logprobs, logprobs.clone(), advantages, all_true(advantages))
    assert (result.ratio == 1).all() and not result.clipped.any()
    assert torch.equal(result.loss, -advantages)


def test_outside_the_mask_the_ratio_is_one_and_nothing_is_clipped():
    new, old, mask = f64([[0.0, 5.0, NAN]]), f64([[-1.0, 0.0, 0.0]]), torch.tensor([[True, False, False]])
    result = surrogate(new, old, f64([[1.0, 1.0, NAN]]), mask)
    exactly(result.loss, f64([[-1.2, 0.0, 0.0]]))
    exactly(result.ratio, f64([[math.e, 1.0, 1.0]]))
    assert result.clipped.tolist() == [[True, False, False]]


def test_the_ends_of_the_clip_ranges_are_accepted():
    new, old, advantages = f64([[1.0, -1.0]]), f64([[0.0, 0.0]]), f64([[1.0, -1.0]])
    for clip_low, expected in ((0.0, [[-1.0, 1.0]]), (1.0, [[-1.0, math.exp(-1)]])):
        result = policy_loss(new, old, advantages, all_true(new), clip_low=clip_low, clip_high=0.0, dual_clip=None)
        exactly(result.loss, f64(expected))


@given(seed=SEEDS)
def test_the_loss_bounds_the_unclipped_surrogate(seed):
    new, old, advantages = normal(seed, 3, 4, count=3)
    result = surrogate(new, old, advantages, all_true(new))
    unclipped = -advantages * (new - old).exp()
    assert (result.loss >= unclipped).all()
    assert torch.equal(result.clipped, result.loss > unclipped)


@given(seed=SEEDS, gamma=st.floats(0.1, 1))
def test_at_ratio_one_the_gradient_is_the_policy_gradient(seed, gamma):
    """Over a vocabulary of five, the gradient of -sum_a pi_a A_a is -pi_i (A_i - sum_a pi_a A_a)."""
    logits, advantages = (x.mul(gamma) for x in normal(seed, 5, count=2))
    logits.requires_grad_()
    new = logits.log_softmax(0).unsqueeze(0)
    loss = surrogate(new, new.detach(), advantages.unsqueeze(0), all_true(new)).loss
    (gradient,) = torch.autograd.grad((new.detach().exp() * loss).sum(), logits)
    weights = [math.exp(logit) for logit in logits.tolist()]
    pi = [weight / math.fsum(weights) for weight in weights]
    expected_advantage = math.fsum(p * a for p, a in zip(pi, advantages.tolist(), strict=True))
    by_hand = [-p * (a - expected_advantage) for p, a in zip(pi, advantages.tolist(), strict=True)]
    exactly(gradient, f64(by_hand))


def test_advantages_and_old_logprobs_carry_no_gradient():
    new, old, advantages = (x.requires_grad_() for x in normal(0, 2, 3, count=3))
    result = surrogate(new, old, advantages, all_true(new))
    assert not result.ratio.requires_grad
    gradients = torch.autograd.grad(result.loss.sum(), (new, old, advantages), allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("clip_low", {"clip_low": -0.1}),
        ("clip_low", {"clip_low": 1.1}),
        ("clip_high", {"clip_high": -0.1}),
        ("dual_clip", {"dual_clip": 1.0}),
    ],
)
def test_a_clip_range_that_cannot_work_is_refused(name, changed):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=f"{name}: expected"):
        policy_loss(x, x, x, all_true(x), **({"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None} | changed))
