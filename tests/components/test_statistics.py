"""Bootstrap intervals against numbers worked out by hand and against scipy's own bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from components.errors import DataError
from components.statistics import mean_interval, paired_bootstrap

SETTINGS = {"resamples": 4000, "confidence": 0.95, "seed": 3}


def test_constant_differences_give_an_interval_of_no_width() -> None:
    interval = paired_bootstrap([1.5, 2.5, 9.5], [1.0, 2.0, 9.0], **SETTINGS)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_two_values_resample_to_three_means() -> None:
    # 0 and 1 give means 0, 1/2, 1 with weights 1/4, 1/2, 1/4: the 2.5 % and 97.5 %
    # quantiles are 0 and 1, and the 26 % and 74 % quantiles are both 1/2.
    wide = mean_interval([0.0, 1.0], **SETTINGS)
    assert (wide.mean, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = mean_interval([0.0, 1.0], resamples=4000, confidence=0.48, seed=3)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_agrees_with_scipy_and_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 200)
    ours = mean_interval(values.tolist(), **SETTINGS)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1)
    low, high = theirs.confidence_interval
    standard_error = values.std(ddof=1) / math.sqrt(200)
    # An end's Monte Carlo error at 4,000 draws is sqrt(p(1-p)/n) / density ~ 0.042 standard errors; the
    # difference of two such ends stays within 4 sigma.
    assert ours.low == pytest.approx(
        low, abs=0.24 * standard_error
    )  # reason: Monte Carlo error of a percentile bootstrap
    assert ours.high == pytest.approx(
        high, abs=0.24 * standard_error
    )  # reason: Monte Carlo error of a percentile bootstrap
    assert ours.high - ours.low == pytest.approx(
        2 * 1.96 * standard_error, rel=0.1
    )  # reason: Monte Carlo error of a percentile bootstrap


def test_pairing_removes_what_both_share() -> None:
    hardness = np.random.default_rng(1).normal(0.0, 10.0, 100)
    interval = paired_bootstrap((hardness + 0.1).tolist(), hardness.tolist(), **SETTINGS)
    assert interval.low == pytest.approx(0.1) and interval.high == pytest.approx(0.1)


def test_sign_is_candidate_minus_baseline() -> None:
    assert paired_bootstrap([0.0, 0.0], [1.0, 1.0], **SETTINGS).high == -1.0


def test_same_seed_same_interval_also_when_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(i % 7) for i in range(50)]
    whole = mean_interval(values, **SETTINGS)
    assert mean_interval(values, **SETTINGS) == whole
    monkeypatch.setattr("components.statistics._DRAWS_AT_ONCE", 50 * 300)
    assert mean_interval(values, **SETTINGS) == whole


def test_other_seed_other_draws() -> None:
    values = [float(i % 7) for i in range(50)]
    four, five = (mean_interval(values, resamples=200, confidence=0.95, seed=seed) for seed in (4, 5))
    assert four.mean == five.mean and four != five


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_unusable_values_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError):
        mean_interval(values, **SETTINGS)


def test_prompts_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0], **SETTINGS)
