from __future__ import annotations

import statistics
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.rewards import (
    clip_scores,
    ensemble_score,
    length_penalty,
    missing_eos,
    per_token_rewards,
)

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

SEEDS = st.integers(0, 2**31)
NAN = float("nan")


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, generator=generator, dtype=torch.float64)
    kl = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 5, generator=generator) < 0.5
    return scores, kl, mask | (torch.arange(5) == 1)


def test_the_score_sits_on_the_last_token_of_each_response():
    scores = f64([1.0, -2.0, 3.0])
    kl = f64([[0.1, 0.2, 0.3], [0.5, -0.4, 9.0], [0.3, 9.0, 0.2]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, True]])
    expected = [[-0.05, -0.1, 0.85], [-0.25, -1.8, 0.0], [-0.15, 0.0, 2.9]]
    exactly(per_token_rewards(scores, kl, 0.5, mask), f64(expected))


def test_without_a_coefficient_only_the_score_is_left():
    rewards = per_token_rewards(f64([2.0]), f64([[0.7, -0.3]]), 0.0, torch.tensor([[True, True]]))
    exactly(rewards, f64([[0.0, 2.0]]))


@given(seed=SEEDS, kl_coef=st.floats(0, 3))
def test_rewards_of_a_row_sum_to_score_minus_kl(seed, kl_coef):
    scores, kl, mask = batch(seed)
    rewards = per_token_rewards(scores, kl, kl_coef, mask)
    for row in range(4):
        kl_of_row = sum(kl[row, t].item() for t in range(5) if mask[row, t])
        exactly(rewards[row].sum().item(), scores[row].item() - kl_coef * kl_of_row)
    assert (rewards[~mask] == 0).all()


@given(seed=SEEDS)
def test_nan_outside_the_mask_is_harmless(seed):
    scores, kl, mask = batch(seed)
    exactly(
        per_token_rewards(scores, torch.where(mask, kl, NAN), 0.3, mask),
        per_token_rewards(scores, torch.where(mask, kl, 0.0), 0.3, mask),
    )


@given(seed=SEEDS, left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_changes_nothing(seed, left, right):
    scores, kl, mask = batch(seed)
    pad = partial(torch.nn.functional.pad, pad=(left, right))
    padded = per_token_rewards(scores, pad(kl, value=7.0), 0.3, pad(mask, value=False))
    exactly(padded, pad(per_token_rewards(scores, kl, 0.3, mask)))


def test_a_row_without_a_token_has_no_place_for_its_score():
    with pytest.raises(ValueError, match=r"a True in every row, found none in row\(s\) \[0\]"):
        per_token_rewards(f64([1.0]), f64([[0.0, 0.0]]), 0.1, torch.tensor([[False, False]]))


def test_a_negative_coefficient_would_pay_for_drift():
    with pytest.raises(ValueError, match="kl_coef: expected"):
        per_token_rewards(f64([1.0]), f64([[0.0]]), -0.1, torch.tensor([[True]]))


def test_scores_are_clipped_on_both_sides():
    exactly(clip_scores(f64([-7.0, -5.0, 0.5, 5.5]), 5.0), f64([-5.0, -5.0, 0.5, 5.0]))
    with pytest.raises(ValueError, match="limit: expected a number above 0"):
        clip_scores(f64([1.0]), 0.0)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("none", 1.0, [2.0, 3.0, -4.0]),
        ("replace", -1.0, [2.0, -1.0, -1.0]),
        ("subtract", 1.0, [2.0, 2.0, -5.0]),
        ("subtract", 0.0, [2.0, 3.0, -4.0]),
    ],
)
def test_scores_of_responses_without_an_end(mode, value, expected):
    scores, ended = f64([2.0, 3.0, -4.0]), torch.tensor([True, False, False])
    exactly(missing_eos(scores, ended, mode, value), f64(expected))


@given(seed=SEEDS, mode=st.sampled_from(["none", "replace", "subtract"]), value=st.floats(0, 5))
def test_ended_responses_keep_their_score(seed, mode, value):
    scores, _, mask = batch(seed)
    ended = mask[:, 0]
    assert torch.equal(missing_eos(scores, ended, mode, value)[ended], scores[ended])


def test_unknown_modes_and_bonuses_are_refused():
    scores, ended = f64([1.0]), torch.tensor([False])
    with pytest.raises(ValueError, match="mode: expected none, replace or subtract, found 'multiply'"):
        missing_eos(scores, ended, "multiply", 1.0)
    with pytest.raises(ValueError, match="value: expected a penalty not below 0"):
        missing_eos(scores, ended, "subtract", -1.0)
    with pytest.raises(ValueError, match="ended: expected dtype torch.bool"):
        missing_eos(scores, torch.tensor([0.0]), "none", 1.0)
    with pytest.raises(ValueError, match="mode: expected mean, min or mean_minus_std, found 'max'"):
        ensemble_score(f64([[1.0]]), "max", 1.0)


def test_the_penalty_falls_from_zero_to_minus_factor():
    """Limit 20, buffer 4: free through 16, then a quarter of the factor a token, never more than all."""
    lengths = torch.tensor([1, 16, 17, 18, 19, 20, 25])
    penalty = length_penalty(lengths, limit=20, buffer=4, factor=2.0)
    assert penalty.tolist() == [0.0, 0.0, -0.5, -1.0, -1.5, -2.0, -2.0]
    assert penalty.dtype == torch.float32


def test_the_ends_of_the_length_penalty_are_accepted():
    lengths = torch.tensor([0, 1, 3, 4])
    assert length_penalty(lengths, limit=4, buffer=4, factor=1.0).tolist() == [0.0, -0.25, -0.75, -1.0]
    assert length_penalty(lengths, limit=4, buffer=1, factor=1.0).tolist() == [0.0, 0.0, 0.0, -1.0]
    assert length_penalty(lengths, limit=4, buffer=2, factor=0.0).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert length_penalty(torch.tensor([1]), limit=1, buffer=1, factor=1.0).tolist() == [-1.0]


@pytest.mark.parametrize(
    ("name", "changed"),
    [("buffer", {"buffer": 0}), ("buffer", {"buffer": 21}), ("factor", {"factor": -1.0})],
)
def test_a_length_penalty_that_cannot_work_is_refused(name, changed):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        length_penalty(torch.tensor([3]), **({"limit": 20, "buffer": 4, "factor": 1.0} | changed))


def test_lengths_are_integers():
    with pytest.raises(ValueError, match="lengths: expected an integer dtype"):
        length_penalty(torch.tensor([3.0]), limit=20, buffer=4, factor=1.0)


def test_three_reward_models_and_two_responses():
    """1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, std sqrt 7. Three equal scores have no spread."""
    scores = f64([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    exactly(ensemble_score(scores, "mean", 1.0), f64([3.0, 5.0]))
    exactly(ensemble_score(scores, "min", 1.0), f64([1.0, 5.0]))
    exactly(ensemble_score(scores, "mean_minus_std", 0.5), f64([3.0 - 0.5 * 7**0.5, 5.0]))


@given(seed=SEEDS, k=st.floats(0, 3))
def test_min_is_never_above_mean(seed, k):
    _, scores, _ = batch(seed)
    mean = f64([statistics.fmean(column) for column in scores.T.tolist()])
    exactly(ensemble_score(scores, "mean", k), mean)
    assert (ensemble_score(scores, "min", k) <= mean).all()
    assert (ensemble_score(scores, "mean_minus_std", k) <= mean + 1e-12).all()


@given(seed=SEEDS, mode=st.sampled_from(["mean", "min", "mean_minus_std"]))
def test_the_order_of_the_models_does_not_matter(seed, mode):
    _, scores, _ = batch(seed)
    exactly(ensemble_score(scores.flip(0), mode, 1.5), ensemble_score(scores, mode, 1.5))


def test_an_ensemble_has_members():
    exactly(ensemble_score(f64([[1.0, 2.0]]), "min", 0.0), f64([1.0, 2.0]))
    with pytest.raises(ValueError, match="scores: expected at least 2 reward models for a std, found 1"):
        ensemble_score(f64([[1.0, 2.0]]), "mean_minus_std", 1.0)
    with pytest.raises(ValueError, match="scores: expected at least one reward model"):
        ensemble_score(torch.zeros(0, 2), "mean", 0.0)
    with pytest.raises(ValueError, match="scores: expected a floating dtype"):
        ensemble_score(torch.tensor([[1, 2]]), "min", 0.0)
    with pytest.raises(ValueError, match="k: expected a number not below 0"):
        ensemble_score(f64([[1.0], [2.0]]), "mean_minus_std", -1.0)
