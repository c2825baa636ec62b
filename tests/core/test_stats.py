"""Sums, means, variances and whitening under a mask."""

from __future__ import annotations

import math
import statistics
from functools import partial

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.stats import masked_mean, masked_sum, masked_var, whiten

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)
to_six_digits = partial(assert_close, rtol=0, atol=6e-7)  # printed with six digits

SEEDS = st.integers(0, 2**31)
EVERY = [masked_sum, masked_mean, masked_var, whiten]
ONE_TO_FOUR = f64([[1.0, 99.0, 2.0], [3.0, 4.0, -99.0]])
SELECTED = torch.tensor([[True, False, True], [True, True, False]])


def batch(seed: int, rows: int = 4, columns: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers away from mean 0 and variance 1, and a mask with at least two True."""
    generator = torch.Generator().manual_seed(seed)
    x = 3 + 2 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, columns, generator=generator) < 0.6
    return x, mask | (torch.arange(columns) < 1)


def test_sum_mean_and_variance_of_one_to_four():
    exactly(masked_sum(ONE_TO_FOUR, SELECTED), f64(10.0))
    exactly(masked_mean(ONE_TO_FOUR, SELECTED), f64(2.5))
    exactly(masked_var(ONE_TO_FOUR, SELECTED), f64(5 / 3))
    exactly(masked_var(ONE_TO_FOUR, SELECTED, unbiased=False), f64(5 / 4))


def test_sum_and_mean_along_a_dimension():
    exactly(masked_sum(ONE_TO_FOUR, SELECTED, dim=1), f64([3.0, 7.0]))
    exactly(masked_mean(ONE_TO_FOUR, SELECTED, dim=1), f64([1.5, 3.5]))
    exactly(masked_mean(ONE_TO_FOUR, SELECTED, dim=0), f64([2.0, 4.0, 2.0]))


def test_the_mean_of_booleans_is_a_fraction():
    assert masked_mean(torch.tensor([True, False, True, True]), torch.tensor([True, True, True, False])) == 2 / 3


def test_the_sum_of_nothing_is_zero_and_its_mean_is_refused():
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert masked_sum(f64([[1.0, 2.0], [3.0, 4.0]]), nothing) == 0
    with pytest.raises(ValueError, match="mask: expected a True for every mean"):
        masked_mean(torch.ones(2, 2), nothing)
    with pytest.raises(ValueError, match="mask: expected a True for every mean"):
        masked_mean(torch.ones(2, 2), torch.tensor([[True, True], [False, False]]), dim=1)


def test_whitening_one_to_four():
    to_six_digits(whiten(ONE_TO_FOUR, SELECTED), f64([[-1.161895, 0.0, -0.387298], [0.387298, 1.161895, 0.0]]))


@pytest.mark.parametrize("function", [whiten, masked_var])
def test_one_number_has_no_spread(function):
    with pytest.raises(ValueError, match="mask: expected at least 2 True, found 1"):
        function(f64([[1.0, 2.0]]), torch.tensor([[False, True]]))


def test_one_number_has_a_biased_variance_of_zero():
    assert masked_var(f64([1.0, 2.0]), torch.tensor([False, True]), unbiased=False) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(count=st.integers(2, 16), number=st.floats(-1001, 1001, width=32))
@example(count=16, number=1000.1)
def test_equal_numbers_whiten_to_zero(dtype, count, number):
    x, mask = torch.full((count + 1,), number, dtype=dtype), torch.ones(count + 1).bool()
    x[-1], mask[-1] = torch.nan, False
    assert torch.equal(whiten(x, mask), torch.zeros(count + 1, dtype=dtype))


def test_the_variance_floor_is_added_to_the_variance():
    """Variance 2e-8 plus the floor of 1e-8, so that 1e-4 whitens to 1e-4 / sqrt(3e-8) = 1 / sqrt(3)."""
    exactly(whiten(f64([-1e-4, 1e-4]), torch.ones(2).bool()), f64([-(3**-0.5), 3**-0.5]))


@pytest.mark.parametrize("function", EVERY)
@given(seed=SEEDS)
def test_nan_outside_the_mask_is_harmless(function, seed):
    x, mask = batch(seed)
    weights = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def result_and_gradient(outside: float) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = torch.where(mask, x, outside).requires_grad_()
        result = function(leaf, mask)
        (gradient,) = torch.autograd.grad((result * (weights if result.dim() else 1)).sum(), leaf)
        return result.detach(), gradient

    clean_result, clean_gradient = result_and_gradient(0.0)
    assert (clean_gradient[mask] != 0).any() and (clean_gradient[~mask] == 0).all()
    for outside in (float("nan"), float("inf"), float("-inf"), 1e30):
        result, gradient = result_and_gradient(outside)
        exactly(result, clean_result)
        exactly(gradient, clean_gradient)


@pytest.mark.parametrize("function", EVERY)
@given(seed=SEEDS, left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_changes_nothing(function, seed, left, right):
    x, mask = batch(seed)
    pad = partial(torch.nn.functional.pad, pad=(left, right))
    result, padded = function(x, mask), function(pad(x, value=7.0), pad(mask, value=False))
    exactly(padded, pad(result) if result.dim() else result)


@given(seed=SEEDS, shift=st.floats(-50, 50))
def test_variance_ignores_a_shift(seed, shift):
    x, mask = batch(seed)
    exactly(masked_var(x + shift, mask), masked_var(x, mask), atol=1e-10)


@given(seed=SEEDS)
def test_statistics_agree_with_the_standard_library(seed):
    x, mask = batch(seed)
    numbers = x[mask].tolist()
    exactly(masked_sum(x, mask).item(), math.fsum(numbers), atol=1e-10)
    exactly(masked_mean(x, mask).item(), statistics.fmean(numbers))
    exactly(masked_var(x, mask).item(), statistics.variance(numbers), atol=1e-10)
    exactly(masked_var(x, mask, unbiased=False).item(), statistics.pvariance(numbers), atol=1e-10)


@given(seed=SEEDS)
def test_whitened_has_mean_zero_and_variance_one(seed):
    x, mask = batch(seed)
    whitened = whiten(x, mask)
    exactly(statistics.fmean(whitened[mask].tolist()), 0.0)
    exactly(statistics.variance(whitened[mask].tolist()), 1.0, atol=1e-6)  # the variance floor
    assert (whitened[~mask] == 0).all()


@given(seed=SEEDS, scale=st.floats(0.5, 20), shift=st.floats(-20, 20))
def test_whitening_ignores_shift_and_scale(seed, scale, shift):
    x, mask = batch(seed)
    exactly(whiten(scale * x + shift, mask), whiten(x, mask), atol=1e-6)  # the variance floor


@given(seed=SEEDS)
def test_permuting_the_rows_permutes_the_result(seed):
    x, mask = batch(seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    exactly(whiten(x[order], mask[order]), whiten(x, mask)[order])


@pytest.mark.parametrize("function", [masked_var, whiten])
def test_integers_have_no_std(function):
    with pytest.raises(ValueError, match="x: expected a floating dtype"):
        function(torch.tensor([1, 2]), torch.tensor([True, True]))


@pytest.mark.parametrize("function", EVERY)
def test_a_mask_of_numbers_or_another_shape_is_refused(function):
    with pytest.raises(ValueError, match="mask: expected dtype torch.bool"):
        function(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="mask: expected the shape of x"):
        function(torch.ones(2, 3), torch.ones(1, 3).bool())
