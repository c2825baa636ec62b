"""Intervals against numbers worked out by hand, against scipy, and by how often they hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from components.errors import DataError
from components.measuring.intervals import Interval, mean_interval, paired_interval, share_interval

CONFIDENCE = 0.95
SIMULATIONS = 1500
# reason: four standard errors of a coverage of 0.95 in 1,500 simulations are 0.0225
NEAR = 0.0225


def coverage(interval: Callable[[np.ndarray], Interval], draw: Callable[[], np.ndarray], truth: float) -> float:
    found = [interval(draw()) for _ in range(SIMULATIONS)]
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def test_constant_differences_give_an_interval_of_no_width() -> None:
    interval = paired_interval([1.5, 2.5, 9.5], [1.0, 2.0, 9.0], confidence=CONFIDENCE)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_two_values_by_hand() -> None:
    # Mean 1/2, standard error 1/2; t with one degree of freedom is Cauchy's, whose 97.5 % quantile is tan(0.475 pi).
    interval = mean_interval([0.0, 1.0], confidence=CONFIDENCE)
    reach = 0.5 * math.tan(0.475 * math.pi)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach))


def test_agrees_with_scipys_t_interval() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 200)
    ours = mean_interval(values.tolist(), confidence=CONFIDENCE)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("successes", [0, 1, 13, 39, 40])
def test_shares_of_one_response_a_prompt_have_scipys_wilson_interval(successes: int) -> None:
    ours = share_interval([1.0] * successes + [0.0] * (40 - successes), confidence=CONFIDENCE)
    theirs = stats.binomtest(successes, 40).proportion_ci(CONFIDENCE, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low < ours.high


def test_two_samples_that_always_agree_are_worth_one() -> None:
    alone = share_interval([1.0, 0.0, 0.0, 0.0], confidence=CONFIDENCE)
    doubled = share_interval([(value + value) / 2 for value in (1.0, 0.0, 0.0, 0.0)], confidence=CONFIDENCE)
    assert doubled == alone


def test_a_difference_of_shares_that_never_vary_has_a_width() -> None:
    interval = paired_interval([1.0] * 40, [1.0] * 40, confidence=CONFIDENCE, shares=True)
    wilson = 1.0 - 40 / (40 + 1.959964**2)
    assert (interval.low, interval.mean, interval.high) == pytest.approx((-wilson, 0.0, wilson))


@pytest.mark.parametrize("prompts", [5, 30, 100, 300])
def test_means_are_covered_as_often_as_is_said(prompts: int) -> None:
    random = np.random.default_rng(prompts)

    def difference(pair: np.ndarray) -> Interval:
        return paired_interval(*pair.tolist(), confidence=CONFIDENCE)

    def draw() -> np.ndarray:  # a prompt's hardness is in both
        return random.normal(0.0, 3.0, prompts) + random.normal([[0.25], [0.0]], 1.0, (2, prompts))

    found = coverage(difference, draw, 0.25)
    assert found == pytest.approx(CONFIDENCE, abs=NEAR)  # reason: see NEAR


@pytest.mark.parametrize(("prompts", "samples", "rate"), [(40, 1, 0.01), (30, 2, 0.3), (100, 2, 0.95), (300, 2, 0.02)])
def test_shares_are_covered_as_often_as_is_said(prompts: int, samples: int, rate: float) -> None:
    random = np.random.default_rng(prompts)

    def draw() -> np.ndarray:  # half of the prompts above the rate, half below: samples of a prompt hang together
        own = rate * np.where(np.arange(prompts) % 2, 1.04, 0.96)
        return (random.random((samples, prompts)) < own).mean(axis=0)

    found = coverage(lambda values: share_interval(values.tolist(), confidence=CONFIDENCE), draw, rate)
    # A count jumps, and so does its coverage: it lies around the nominal one, never as low as the bootstrap's 0.35.
    assert 0.93 <= found <= 0.995


def test_pairing_removes_what_both_share() -> None:
    hardness = np.random.default_rng(1).normal(0.0, 10.0, 100)
    interval = paired_interval((hardness + 0.1).tolist(), hardness.tolist(), confidence=CONFIDENCE)
    assert interval.low == pytest.approx(0.1) and interval.high == pytest.approx(0.1)


def test_sign_is_candidate_minus_baseline() -> None:
    assert paired_interval([0.0, 0.0], [1.0, 1.0], confidence=CONFIDENCE).high == -1.0


@pytest.mark.parametrize("interval", [mean_interval, share_interval])
@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_unusable_values_are_refused(interval: Callable[..., Interval], values: list[float]) -> None:
    with pytest.raises(DataError):
        interval(values, confidence=CONFIDENCE)


def test_prompts_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0], confidence=CONFIDENCE)
