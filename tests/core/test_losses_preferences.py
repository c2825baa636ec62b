"""The losses of comparisons: Bradley and Terry's, and DPO's."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_inputs import SEEDS, exactly, f64, normal, to_six_digits
from torch.testing import assert_close

from components.core.losses import bradley_terry_loss, dpo_loss


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
