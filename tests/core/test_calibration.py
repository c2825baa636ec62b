from __future__ import annotations

import math
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.calibration import ReliabilityBin, expected_calibration_error, pairwise_accuracy, reliability_table

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

FORECASTS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def test_ties_count_half():
    """A scorer that says the same of everything is as good as a coin."""
    chosen, rejected = f64([2.0, 1.0, -1.0, 0.0, math.inf]), f64([1.0, 2.0, -1.0, 0.0, math.inf])
    assert pairwise_accuracy(chosen, rejected).tolist() == [1.0, 0.0, 0.5, 0.5, 0.5]


def test_four_forecasts_in_ten_bins():
    """|0 - .05| * 1/4 + |.5 - .15| * 2/4 + |1 - .95| * 1/4 = .0125 + .175 + .0125 = .2."""
    probabilities, outcomes = f64([0.05, 0.15, 0.15, 0.95]), torch.tensor([0, 0, 1, 1])
    table = reliability_table(probabilities, outcomes, bins=10)
    exactly(
        [list(row) for row in table],
        [[0.0, 0.1, 1, 0.05, 0.0], [0.1, 0.2, 2, 0.15, 0.5], [0.9, 1.0, 1, 0.95, 1.0]],
    )
    exactly(expected_calibration_error(probabilities, outcomes, bins=10), 0.2)


def test_an_edge_belongs_to_the_upper_bin_and_one_to_the_last():
    probabilities = f64([0.0, 0.25, 0.5, 0.75, 1.0])
    table = reliability_table(probabilities, torch.ones(5), bins=4)
    assert [(row.lower, row.upper, row.size) for row in table] == [
        (0.0, 0.25, 1),
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (0.75, 1.0, 2),
    ]
    assert isinstance(table[0], ReliabilityBin)


def test_a_perfect_forecast_has_error_zero():
    outcomes = torch.tensor([True, False, True])
    assert expected_calibration_error(f64([1.0, 0.0, 1.0]), outcomes, bins=5) == 0
    assert expected_calibration_error(f64([0.0, 1.0, 0.0]), outcomes, bins=5) == 1


@given(forecasts=FORECASTS)
def test_one_bin_gives_the_distance_of_the_means(forecasts):
    probabilities, outcomes = zip(*forecasts, strict=True)
    expected = abs(sum(outcomes) - sum(probabilities)) / len(outcomes)
    exactly(expected_calibration_error(f64(probabilities), torch.tensor(outcomes), bins=1), expected)


@given(forecasts=FORECASTS, bins=st.integers(1, 12))
def test_every_prediction_is_in_one_bin(forecasts, bins):
    probabilities, outcomes = zip(*forecasts, strict=True)
    table = reliability_table(f64(probabilities), torch.tensor(outcomes), bins)
    assert sum(row.size for row in table) == len(forecasts)
    assert all(row.lower <= row.mean_probability + 1e-12 for row in table)
    assert all(row.mean_probability <= row.upper + 1e-12 for row in table)
    assert 0 <= expected_calibration_error(f64(probabilities), torch.tensor(outcomes), bins) <= 1


@pytest.mark.parametrize(
    ("probabilities", "outcomes", "bins", "name"),
    [
        (f64([0.5, 1.1]), f64([0, 1]), 2, "probabilities"),
        (f64([0.5, float("nan")]), f64([0, 1]), 2, "probabilities"),
        (f64([0.5, 0.5]), f64([0, 0.5]), 2, "outcomes"),
        (f64([0.5]), f64([1]), 0, "bins"),
        (f64([]), f64([]), 2, "probabilities"),
        (torch.tensor([0, 1]), f64([0, 1]), 2, "probabilities"),
    ],
)
def test_what_is_no_forecast_is_refused(probabilities, outcomes, bins, name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        expected_calibration_error(probabilities, outcomes, bins)


def test_forecasts_of_half_precision_are_counted_in_full():
    probabilities = torch.linspace(0.01, 0.99, 99, dtype=torch.float16).requires_grad_()
    numbers = probabilities.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = reliability_table(probabilities, torch.ones(99), bins=1)
    exactly(row.mean_probability, math.fsum(numbers) / 99)
