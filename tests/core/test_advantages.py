from __future__ import annotations

import statistics
from functools import partial

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.advantages import dr_grpo, gae, groups_that_differ, grpo, rloo, spread

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

SEEDS = st.integers(0, 2**31)
RATES = st.floats(0, 1)
NAN = float("nan")


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    values = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    return rewards, values, torch.rand(4, 6, generator=generator) < 0.6


@pytest.mark.parametrize(
    ("rewards", "values", "gamma", "gae_lambda", "advantages", "returns"),
    [
        # .3 = 1 - .7;  .385 = .7 - .6 + .95 * .3;  .46575 = .6 - .5 + .95 * .385
        ([0, 0, 1], [0.5, 0.6, 0.7], 1.0, 0.95, [0.46575, 0.385, 0.3], [0.96575, 0.985, 1.0]),
        # lambda 0 leaves the one-step errors: 2 - 1, 3 - 2, 5 - 3
        ([0, 0, 5], [1, 2, 3], 1.0, 0.0, [1, 1, 2], [2, 3, 5]),
        # lambda 1 leaves reward to go minus value: 5 - 1, 5 - 2, 5 - 3
        ([0, 0, 5], [1, 2, 3], 1.0, 1.0, [4, 3, 2], [5, 5, 5]),
        # .8;  -.3 + .99 * .2 - .4 + .9405 * .8 = .2504;  and so on
        (
            [-0.1, 0.2, -0.3, 1],
            [0.3, -0.1, 0.4, 0.2],
            0.99,
            0.95,
            [0.3770768786, 0.9315012, 0.2504, 0.8],
            [0.6770768786, 0.8315012, 0.6504, 1.0],
        ),
        # gamma 1/2, lambda 0: 1 + 2/2 - 4 = -2;  0 + 6/2 - 2 = 1;  3 - 6 = -3
        ([1, 0, 3], [4, 2, 6], 0.5, 0.0, [-2, 1, -3], [2, 3, 3]),
    ],
)
def test_gae_by_hand(rewards, values, gamma, gae_lambda, advantages, returns):
    mask = torch.ones(1, len(rewards), dtype=torch.bool)
    result = gae(f64([rewards]), f64([values]), mask, gamma, gae_lambda)
    exactly(result.advantages, f64([advantages]))
    exactly(result.returns, f64([returns]))


def test_gae_carries_over_a_gap():
    """.8 = 1 - .2;  .96 = .3 + .2 - .3 + .95 * .8;  1.012 = .2 + .3 - .4 + .95 * .96;  .95 * 1.012."""
    rewards, values = f64([[0.1, 0.2, 9.0, 0.3, 1.0]]), f64([[0.5, 0.4, 7.0, 0.3, 0.2]])
    mask = torch.tensor([[True, True, False, True, True]])
    result = gae(rewards, values, mask, 1.0, 0.95)
    exactly(result.advantages, f64([[0.9614, 1.012, 0.0, 0.96, 0.8]]))
    exactly(result.returns, f64([[1.4614, 1.412, 0.0, 1.26, 1.0]]))


def test_there_is_no_bootstrap_behind_the_end():
    """The value of the slot behind the end, 100, is nobody's."""
    result = gae(f64([[0.0, 1.0, 0.0]]), f64([[0.5, 0.5, 100.0]]), torch.tensor([[True, True, False]]), 1.0, 1.0)
    exactly(result.advantages, f64([[0.5, 0.5, 0.0]]))
    exactly(result.returns, f64([[1.0, 1.0, 0.0]]))


@given(seed=SEEDS, gamma=RATES)
def test_lambda_zero_is_one_step_td(seed, gamma):
    rewards, values, _ = batch(seed)
    next_values = torch.cat([values[:, 1:], torch.zeros(4, 1, dtype=torch.float64)], dim=1)
    result = gae(rewards, values, torch.ones(4, 6).bool(), gamma, 0.0)
    exactly(result.advantages, rewards + gamma * next_values - values)


@given(seed=SEEDS, gamma=RATES)
def test_lambda_one_is_reward_to_go_minus_value(seed, gamma):
    rewards, values, _ = batch(seed)
    to_go = [[sum(gamma**k * row[t + k] for k in range(6 - t)) for t in range(6)] for row in rewards.tolist()]
    result = gae(rewards, values, torch.ones(4, 6).bool(), gamma, 1.0)
    exactly(result.advantages, f64(to_go) - values)
    exactly(result.returns, f64(to_go))


@given(seed=SEEDS, gamma=RATES, gae_lambda=RATES)
def test_gae_is_the_sum_of_its_definition(seed, gamma, gae_lambda):
    """A_t = sum_k (gamma lambda)^k delta_(t+k), in plain Python."""
    rewards, values, _ = batch(seed)
    expected = []
    for r, v in zip(rewards.tolist(), values.tolist(), strict=True):
        deltas = [r[t] + gamma * (v[t + 1] if t < 5 else 0.0) - v[t] for t in range(6)]
        expected.append([sum((gamma * gae_lambda) ** k * deltas[t + k] for k in range(6 - t)) for t in range(6)])
    exactly(gae(rewards, values, torch.ones(4, 6).bool(), gamma, gae_lambda).advantages, f64(expected))


@given(seed=SEEDS, gamma=RATES, gae_lambda=RATES)
def test_a_gap_is_as_if_it_were_not_there(seed, gamma, gae_lambda):
    rewards, values, mask = batch(seed)
    result = gae(rewards, values, mask, gamma, gae_lambda)
    for row in range(4):
        kept = mask[row]
        if kept.any():
            without_gaps = gae(rewards[row, kept][None], values[row, kept][None], kept[kept][None], gamma, gae_lambda)
            exactly(result.advantages[row, kept], without_gaps.advantages[0])
            exactly(result.returns[row, kept], without_gaps.returns[0])
    assert (result.advantages[~mask] == 0).all() and (result.returns[~mask] == 0).all()


@given(seed=SEEDS)
def test_nan_outside_the_mask_is_harmless(seed):
    rewards, values, mask = batch(seed)

    def result_and_gradient(outside: float) -> list[torch.Tensor]:
        r, v = (torch.where(mask, x, outside).requires_grad_() for x in (rewards, values))
        result = gae(r, v, mask, 0.9, 0.8)
        return [
            *result,
            *torch.autograd.grad(result.advantages.square().sum() + result.returns.sum(), (r, v)),
        ]

    for outside in (NAN, float("inf")):
        for got, expected in zip(result_and_gradient(outside), result_and_gradient(0.0), strict=True):
            exactly(got, expected)


@given(seed=SEEDS, left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_changes_nothing(seed, left, right):
    rewards, values, mask = batch(seed)
    pad = partial(torch.nn.functional.pad, pad=(left, right))
    padded = gae(pad(rewards, value=7.0), pad(values, value=7.0), pad(mask, value=False), 0.9, 0.8)
    for got, expected in zip(padded, gae(rewards, values, mask, 0.9, 0.8), strict=True):
        exactly(got, pad(expected))


@given(seed=SEEDS)
def test_permuting_the_rows_permutes_the_result(seed):
    rewards, values, mask = batch(seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    permuted = gae(rewards[order], values[order], mask[order], 0.9, 0.8)
    for got, expected in zip(permuted, gae(rewards, values, mask, 0.9, 0.8), strict=True):
        assert torch.equal(got, expected[order])


@pytest.mark.parametrize(
    ("gamma", "gae_lambda", "name"),
    [(1.1, 0.9, "gamma"), (-0.1, 0.9, "gamma"), (0.9, 1.1, "gae_lambda"), (0.9, -0.1, "gae_lambda")],
)
def test_rates_are_between_zero_and_one(gamma, gae_lambda, name):
    with pytest.raises(ValueError, match=f"{name}: expected 0 .. 1"):
        gae(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2).bool(), gamma, gae_lambda)


def test_a_response_of_one_token():
    result = gae(f64([[2.0]]), f64([[0.5]]), torch.tensor([[True]]), 0.9, 0.9)
    exactly(result, (f64([[1.5]]), f64([[2.0]])))


def test_responses_have_tokens():
    with pytest.raises(ValueError, match="values: expected at least one token"):
        gae(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0).bool(), 1.0, 1.0)


def test_rloo_of_two_prompts():
    """1 - (2+6)/2 = -3;  2 - 7/2 = -1.5;  6 - 3/2 = 4.5.  Equal scores leave nothing."""
    scores = f64([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    exactly(rloo(scores, 3), f64([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]))
    exactly(rloo(f64([1.0, 4.0]), 2), f64([-3.0, 3.0]))


def test_grpo_of_two_prompts():
    """1, 2, 6 from their mean 3: -2, -1, 3, std sqrt(14/2) = sqrt 7; eps is part of the divisor."""
    scores = f64([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    exactly(grpo(scores, 3), f64([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]) / (7**0.5 + 1e-6))
    exactly(grpo(scores, 3, eps=1.0), f64([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]) / (7**0.5 + 1.0))


def test_dr_grpo_of_two_prompts():
    """1, 2, 6 from their mean 3, whatever their spread."""
    exactly(dr_grpo(f64([1.0, 2.0, 6.0, 5.0, 5.0, 5.0]), 3), f64([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]))


@given(seed=SEEDS, group_size=st.sampled_from([2, 3, 6]))
def test_rloo_is_dr_grpo_times_g_over_g_minus_one(seed, group_size):
    scores = batch(seed)[0].flatten()
    exactly(rloo(scores, group_size), group_size / (group_size - 1) * dr_grpo(scores, group_size))


def test_groups_that_differ_of_three_prompts():
    scores = f64([1.0, 1.0, 1.0, 2.0, 0.0, 0.0])
    assert groups_that_differ(scores, 2).tolist() == [False, True, False]
    assert groups_that_differ(scores, 3).tolist() == [False, True]
    with pytest.raises(ValueError, match="group_size: expected at least 2 responses a prompt, found 1"):
        groups_that_differ(scores, 1)
    with pytest.raises(ValueError, match=r"scores: expected a multiple of group_size \(4\), found 6"):
        groups_that_differ(scores, 4)


@pytest.mark.parametrize("estimator", [rloo, grpo, dr_grpo])
@given(scores=st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=6, max_size=6))
def test_a_group_that_does_not_differ_has_no_advantage(estimator, scores):
    differ = groups_that_differ(f64(scores), 3)
    assert differ.tolist() == [len(set(scores[:3])) > 1, len(set(scores[3:])) > 1]
    assert torch.equal((estimator(f64(scores), 3).reshape(2, 3) != 0).any(dim=1), differ)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("estimator", [rloo, grpo, dr_grpo])
@given(group_size=st.integers(2, 16), score=st.floats(-1001, 1001, width=32))
@example(group_size=7, score=1000.1)
def test_a_group_of_equal_scores_has_advantage_zero(estimator, dtype, group_size, score):
    scores = torch.full((2 * group_size,), score, dtype=dtype)
    scores[group_size:] = torch.arange(group_size)  # another group, whose scores differ
    first, second = estimator(scores, group_size).split(group_size)
    assert torch.equal(first, torch.zeros(group_size, dtype=dtype))
    assert (second.abs() > 0).any()


@pytest.mark.parametrize("estimator", [rloo, grpo, dr_grpo])
@given(seed=SEEDS, group_size=st.sampled_from([2, 3, 4, 6, 12]))
def test_advantages_of_a_group_sum_to_zero(estimator, seed, group_size):
    scores = batch(seed)[0].flatten()
    groups = estimator(scores, group_size).reshape(-1, group_size)
    exactly(groups.sum(dim=1), torch.zeros(24 // group_size, dtype=torch.float64))


@pytest.mark.parametrize("estimator", [rloo, grpo, dr_grpo])
@given(seed=SEEDS)
def test_a_prompt_sees_only_its_own_group(estimator, seed):
    scores = batch(seed)[0].flatten()
    alone = torch.cat([estimator(group, 4) for group in scores.split(4)])
    exactly(estimator(scores, 4), alone)


@given(seed=SEEDS, group_size=st.sampled_from([2, 3, 6]))
def test_rloo_is_the_distance_from_the_mean_times_g_over_g_minus_one(seed, group_size):
    scores = batch(seed)[0].flatten()
    expected = []
    for group in scores.reshape(-1, group_size).tolist():
        mean = statistics.fmean(group)
        expected += [group_size / (group_size - 1) * (score - mean) for score in group]
    exactly(rloo(scores, group_size), f64(expected))


@pytest.mark.parametrize("estimator", [rloo, grpo, dr_grpo])
def test_groups_of_one_or_uneven_groups_are_refused(estimator):
    with pytest.raises(ValueError, match="group_size: expected at least 2 responses a prompt, found 1"):
        estimator(f64([1.0, 2.0]), 1)
    with pytest.raises(ValueError, match=r"scores: expected a multiple of group_size \(2\), found 3"):
        estimator(f64([1.0, 2.0, 3.0]), 2)
    with pytest.raises(ValueError, match="scores: expected a floating dtype"):
        estimator(torch.tensor([1, 2]), 2)


def test_grpo_needs_its_epsilon():
    with pytest.raises(ValueError, match="eps: expected a number above 0"):
        grpo(f64([1.0, 1.0]), 2, eps=0.0)


def test_spread_gives_each_token_the_number_of_its_sequence():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    exactly(spread(f64([2.0, -3.0]), mask), f64([[2.0, 2.0, 0.0], [-3.0, 0.0, -3.0]]))
    assert torch.equal(spread(f64([NAN, 1.0]), torch.tensor([[False], [True]])), f64([[0.0], [1.0]]))
