"""Running moments: batches merge to the moments of the whole, and survive a checkpoint."""

from __future__ import annotations

import math
import statistics
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.stats import RunningMoments
from components.errors import TrainingError

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)


def test_running_moments_of_one_to_four_and_ten():
    """1, 2, 3, 4: mean 2.5, squares 2.25 + .25 + .25 + 2.25 = 5. With 10: mean 4, 9 + 4 + 1 + 0 + 36 = 50."""
    four = RunningMoments().update(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert four == RunningMoments(count=4.0, mean=2.5, m2=5.0)
    exactly(four.std, math.sqrt(5 / 3))
    five = four.update(torch.tensor([10.0]))
    assert (five.count, five.mean) == (5.0, 4.0)
    exactly(five.m2, 50.0)
    exactly(five.std, math.sqrt(12.5))
    assert four == RunningMoments(count=4.0, mean=2.5, m2=5.0)


@given(
    numbers=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=30),
    cuts=st.tuples(st.integers(1, 29), st.integers(1, 29)),
)
def test_batches_merge_to_the_moments_of_the_whole(numbers, cuts):
    first, second = sorted(min(cut, len(numbers) - 1) for cut in cuts)
    moments = RunningMoments()
    for part in (numbers[:first], numbers[first:second], numbers[second:]):
        if part:
            moments = moments.update(f64(part))
    assert moments.count == len(numbers)
    exactly(moments.mean, statistics.fmean(numbers), atol=1e-9)
    exactly(moments.std, statistics.stdev(numbers), atol=1e-5)  # a variance near 0 has half of the digits


def test_two_numbers_have_a_std():
    exactly(RunningMoments().update(f64([1.0, 3.0])).std, math.sqrt(2))


def test_running_moments_count_float32_in_float64_and_keep_no_gradient():
    values = torch.full((1000,), 0.1).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moments = RunningMoments().update(values)
    exactly(moments.mean, values[0].item())
    exactly(moments.m2, 0.0)


def test_running_moments_hold_their_digits_far_from_zero():
    moments = RunningMoments()
    for _ in range(1000):
        moments = moments.update(f64([1e6 - 1, 1e6, 1e6 + 1]))
    exactly(moments.std, math.sqrt(2000 / 2999), atol=1e-9)


@pytest.mark.parametrize("seen", [RunningMoments(), RunningMoments().update(torch.tensor([1.0]))])
def test_fewer_than_two_numbers_have_no_std(seen):
    with pytest.raises(ValueError, match="count: expected at least 2 numbers seen"):
        _ = seen.std


def test_moments_survive_a_checkpoint():
    moments = RunningMoments().update(f64([0.1, 0.2, 0.7])).update(f64([1 / 3]))
    assert RunningMoments.from_dict(moments.to_dict()) == moments
    assert set(moments.to_dict()) == {"count", "mean", "m2"}
    for unusual in (RunningMoments(), RunningMoments().update(f64([-0.5]))):
        assert RunningMoments.from_dict(unusual.to_dict()) == unusual
    assert RunningMoments().to_dict() == {"count": 0.0, "mean": 0.0, "m2": 0.0}


def test_moments_refuse_what_would_stay_in_them_forever():
    with pytest.raises(TrainingError, match=r"row\(s\) 1\b"):
        RunningMoments().update(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="values: expected at least one number"):
        RunningMoments().update(torch.zeros(0))


@pytest.mark.parametrize(
    "numbers",
    [
        {"count": 1.0, "mean": 0.0},
        {"count": 1.0, "mean": 0.0, "m2": 0.0, "std": 1.0},
        {"count": -1.0, "mean": 0.0, "m2": 0.0},
        {"count": 2.0, "mean": 0.0, "m2": -1.0},
        {"count": 2.0, "mean": float("nan"), "m2": 1.0},
    ],
)
def test_moments_that_no_data_can_have_are_refused(numbers):
    with pytest.raises(ValueError, match="numbers: expected"):
        RunningMoments.from_dict(numbers)
