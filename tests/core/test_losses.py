from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from components.core.losses import (
    aggregate,
    bradley_terry_loss,
    dpo_loss,
    expectile_loss,
    policy_loss,
    value_loss,
)

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)
to_six_digits = partial(assert_close, rtol=0, atol=6e-7)  # printed with six digits

surrogate = partial(policy_loss, clip_low=0.2, clip_high=0.2, dual_clip=None)
SEEDS = st.integers(0, 2**31)
NAN, INF = float("nan"), float("inf")


def normal(seed: int, *shape: int, count: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def some_mask(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def all_true(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


# the surrogate


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


# the value


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


# the aggregate


PER_TOKEN = f64([[1.0, 2.0, 3.0], [4.0, NAN, NAN]])
TOKENS = torch.tensor([[True, True, True], [True, False, False]])


def test_aggregates_of_two_rows():
    """Tokens: (1 + 2 + 3 + 4) / 4. Sequences: (mean 2 + mean 4) / 2. A larger step has its own count."""
    exactly(aggregate(PER_TOKEN, TOKENS, "token_mean", 4), f64(2.5))
    exactly(aggregate(PER_TOKEN, TOKENS, "sequence_mean", 2), f64(3.0))
    exactly(aggregate(PER_TOKEN, TOKENS, "token_mean", 40), f64(0.25))
    exactly(aggregate(PER_TOKEN, TOKENS, "sequence_mean", 20), f64(0.3))


def test_a_row_without_a_token_adds_nothing():
    per_token, mask = f64([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[True, True], [False, False]])
    exactly(aggregate(per_token, mask, "token_mean", 2), f64(2.0))
    exactly(aggregate(per_token, mask, "sequence_mean", 1), f64(2.0))


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean"])
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 5)))
def test_splitting_into_microbatches_changes_nothing(mode, seed, cuts):
    (per_token,), mask = normal(seed, 6, 5), some_mask(seed, 6, 5)
    count = mask.sum().item() if mode == "token_mean" else mask.any(dim=1).sum().item()
    whole = aggregate(per_token, mask, mode, max(count, 1))
    bounds = [0, *sorted(cuts), 6]
    parts = [
        aggregate(per_token[start:end], mask[start:end], mode, max(count, 1))
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]
    exactly(torch.stack(parts).sum(), whole)


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean"])
@given(seed=SEEDS)
def test_permuting_the_rows_changes_nothing(mode, seed):
    (per_token,), mask = normal(seed, 6, 5), some_mask(seed, 6, 5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    exactly(aggregate(per_token[order], mask[order], mode, 7), aggregate(per_token, mask, mode, 7))


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean"])
@given(seed=SEEDS, left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_changes_nothing(mode, seed, left, right):
    (per_token,), mask = normal(seed, 6, 5), some_mask(seed, 6, 5)
    pad = partial(torch.nn.functional.pad, pad=(left, right))
    padded = aggregate(pad(per_token, value=7.0), pad(mask, value=False), mode, 7)
    exactly(padded, aggregate(per_token, mask, mode, 7))


@pytest.mark.parametrize("denominator", [0, -1, NAN, INF])
def test_a_step_counts_something(denominator):
    with pytest.raises(ValueError, match="denominator: expected the count of the step, above 0"):
        aggregate(PER_TOKEN, TOKENS, "token_mean", denominator)


def test_an_unknown_aggregation_is_refused():
    with pytest.raises(ValueError, match="mode: expected token_mean or sequence_mean, found 'mean'"):
        aggregate(PER_TOKEN, TOKENS, "mean", 4)


# what holds for all three


def losses_of_masked_inputs(seed: int, outside: float) -> list[Tensor]:
    """Loss and gradient of surrogate, value loss and aggregate, with this number outside of the mask."""
    mask = some_mask(seed, 3, 4)
    x, y, z = (torch.where(mask, tensor, outside) for tensor in normal(seed, 3, 4, count=3))
    results: list[Tensor] = []
    for loss in (
        lambda leaf: policy_loss(leaf, y, z, mask, clip_low=0.2, clip_high=0.2, dual_clip=3.0).loss,
        lambda leaf: value_loss(leaf, y, z, mask, value_clip_range=0.2).loss,
        lambda leaf: value_loss(leaf, y, z, mask, value_clip_range=None).loss,
        lambda leaf: aggregate(leaf, mask, "token_mean", 3),
        lambda leaf: aggregate(leaf, mask, "sequence_mean", 3),
    ):
        leaf = x.clone().requires_grad_()
        value = loss(leaf)
        results += [value.detach(), *torch.autograd.grad(value.sum(), leaf)]
    return results


@given(seed=SEEDS)
def test_nan_outside_the_mask_is_harmless(seed):
    clean = losses_of_masked_inputs(seed, 0.0)
    mask = some_mask(seed, 3, 4)
    assert all((result[~mask] == 0).all() for result in clean if result.dim())
    for outside in (NAN, INF, 1e30):
        for got, expected in zip(losses_of_masked_inputs(seed, outside), clean, strict=True):
            exactly(got, expected)


def test_gradients_in_float64():
    x, y, z = normal(1, 3, 4, count=3)
    mask = some_mask(1, 3, 4)
    leaf = x.clone().requires_grad_()
    check = partial(torch.autograd.gradcheck, inputs=(leaf,))
    assert check(lambda new: surrogate(new, y, z, mask).loss)
    assert check(lambda new: policy_loss(new, y, z, mask, clip_low=0.1, clip_high=0.3, dual_clip=1.5).loss)
    assert check(lambda values: value_loss(values, y, z, mask, value_clip_range=0.3).loss)
    assert check(lambda per_token: aggregate(per_token, mask, "sequence_mean", 3))
    assert check(lambda diff: expectile_loss(diff, 0.7))
    pairs = tuple(tensor.requires_grad_() for tensor in normal(2, 5, count=2))
    refs = normal(3, 5, count=2)
    assert torch.autograd.gradcheck(lambda a, b: bradley_terry_loss(a, b, 0.5), pairs)
    assert torch.autograd.gradcheck(lambda a, b: dpo_loss(a, b, *refs, beta=0.3, label_smoothing=0.1), pairs)
    assert torch.autograd.gradcheck(lambda a, b: dpo_loss(a, b, *refs, beta=0.3, form="ipo"), pairs)


# preferences


def test_bradley_terry_of_one_pair():
    """log(1 + e^-.9) and, with a margin of .5, log(1 + e^-.4)."""
    chosen, rejected = f64([1.3]), f64([0.4])
    to_six_digits(bradley_terry_loss(chosen, rejected), f64([0.341154]))
    to_six_digits(bradley_terry_loss(chosen, rejected, margin=0.5), f64([0.513015]))


@given(seed=SEEDS)
def test_probabilities_of_both_orders_sum_to_one(seed):
    a, b = normal(seed, 6, count=2)
    both = (-bradley_terry_loss(a, b)).exp() + (-bradley_terry_loss(b, a)).exp()
    exactly(both, torch.ones(6, dtype=torch.float64))


@given(seed=SEEDS, shift=st.floats(-20, 20))
def test_a_shift_of_both_scores_changes_nothing(seed, shift):
    a, b = normal(seed, 6, count=2)
    exactly(bradley_terry_loss(a + shift, b + shift, 0.2), bradley_terry_loss(a, b, 0.2))


def test_a_hopeless_pair_costs_its_distance_and_no_infinity():
    assert_close(bradley_terry_loss(torch.tensor([0.0]), torch.tensor([1000.0])), torch.tensor([1000.0]))


PAIR = f64([-10.0]), f64([-12.0]), f64([-11.0]), f64([-11.5])


@pytest.mark.parametrize(
    ("beta", "label_smoothing", "form", "expected"),
    [
        # h = (-10 + 12) - (-11 + 11.5) = 1.5;  log(1 + e^-.15), and .1 * .15 more with smoothing
        (0.1, 0.0, "sigmoid", 0.620957),
        (0.1, 0.1, "sigmoid", 0.635957),
        (0.1, 0.0, "ipo", 12.25),  # (1.5 - 5)^2
        (0.5, 0.0, "sigmoid", 0.386871),
        (0.5, 0.1, "sigmoid", 0.461871),
        (0.5, 0.0, "ipo", 0.25),  # (1.5 - 1)^2
    ],
)
def test_dpo_of_one_pair(beta, label_smoothing, form, expected):
    loss = dpo_loss(*PAIR, beta=beta, label_smoothing=label_smoothing, form=form)
    to_six_digits(loss, f64([expected]))


@given(seed=SEEDS, beta=st.floats(0.01, 5))
def test_a_policy_equal_to_the_reference_has_loss_log_two(seed, beta):
    chosen, rejected = normal(seed, 6, count=2)
    loss = dpo_loss(chosen, rejected, chosen, rejected, beta=beta)
    exactly(loss, torch.full((6,), math.log(2), dtype=torch.float64))


@given(seed=SEEDS, label_smoothing=st.floats(0, 0.49))
def test_swapping_the_pair_swaps_the_smoothing(seed, label_smoothing):
    a, b, ref_a, ref_b = normal(seed, 6, count=4)
    smoothed = dpo_loss(a, b, ref_a, ref_b, beta=0.7, label_smoothing=label_smoothing)
    as_labelled = dpo_loss(a, b, ref_a, ref_b, beta=0.7)
    flipped = dpo_loss(b, a, ref_b, ref_a, beta=0.7)
    exactly(smoothed, (1 - label_smoothing) * as_labelled + label_smoothing * flipped)


@given(seed=SEEDS)
def test_dpo_is_bradley_terry_on_implicit_rewards(seed):
    a, b, ref_a, ref_b = normal(seed, 6, count=4)
    rewards = 0.7 * (a - ref_a), 0.7 * (b - ref_b)
    exactly(dpo_loss(a, b, ref_a, ref_b, beta=0.7), bradley_terry_loss(*rewards))


def test_reference_logprobs_carry_no_gradient():
    leaves = [x.requires_grad_() for x in normal(0, 4, count=4)]
    for form in ("sigmoid", "ipo"):
        loss = dpo_loss(*leaves, beta=0.1, form=form).sum()
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        assert [gradient is None for gradient in gradients] == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("beta", {"beta": 0.0}),
        ("label_smoothing", {"label_smoothing": 0.5}),
        ("label_smoothing", {"label_smoothing": -0.1}),
        ("label_smoothing", {"label_smoothing": 0.1, "form": "ipo"}),
        ("form", {"form": "hinge"}),
    ],
)
def test_dpo_settings_that_cannot_work_are_refused(name, changed):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        dpo_loss(*PAIR, **({"beta": 0.1} | changed))


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
