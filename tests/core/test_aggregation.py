"""How losses of tokens are added up, and what they are divided by."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_inputs import INF, NAN, SEEDS, exactly, f64, normal, some_mask

from components.core.aggregation import aggregate, step_denominator

PER_TOKEN = f64([[1.0, 2.0, 3.0], [4.0, NAN, NAN]])
TOKENS = torch.tensor([[True, True, True], [True, False, False]])


def test_aggregates_of_two_rows():
    """Tokens: (1 + 2 + 3 + 4) / 4. Sequences: (mean 2 + mean 4) / 2. A larger step has its own count."""
    exactly(aggregate(PER_TOKEN, TOKENS, "token_mean", 4), f64(2.5))
    exactly(aggregate(PER_TOKEN, TOKENS, "sequence_mean", 2), f64(3.0))
    exactly(aggregate(PER_TOKEN, TOKENS, "token_mean", 40), f64(0.25))
    exactly(aggregate(PER_TOKEN, TOKENS, "sequence_mean", 20), f64(0.3))
    # Dr. GRPO: the sum over two rows of at most five tokens
    exactly(aggregate(PER_TOKEN, TOKENS, "sum_over_limit", 2 * 5), f64(1.0))


def test_a_row_without_a_token_adds_nothing():
    per_token, mask = f64([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[True, True], [False, False]])
    exactly(aggregate(per_token, mask, "token_mean", 2), f64(2.0))
    exactly(aggregate(per_token, mask, "sequence_mean", 1), f64(2.0))


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sum_over_limit"])
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


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sum_over_limit"])
@given(seed=SEEDS)
def test_permuting_the_rows_changes_nothing(mode, seed):
    (per_token,), mask = normal(seed, 6, 5), some_mask(seed, 6, 5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    exactly(aggregate(per_token[order], mask[order], mode, 7), aggregate(per_token, mask, mode, 7))


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sum_over_limit"])
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
    with pytest.raises(ValueError, match="mode: expected token_mean, sequence_mean or sum_over_limit, found 'mean'"):
        aggregate(PER_TOKEN, TOKENS, "mean", 4)


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sum_over_limit"])
def test_nan_outside_the_mask_is_harmless(mode):
    """Of PER_TOKEN and of its gradient: 1/12 a token, or 1/12 over the tokens of its row."""
    leaf = PER_TOKEN.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(aggregate(leaf, TOKENS, mode, 12), leaf)
    in_row = 36 if mode == "sequence_mean" else 12
    exactly(gradient, f64([[1 / in_row, 1 / in_row, 1 / in_row], [1 / 12, 0.0, 0.0]]))
    inputs = (torch.nan_to_num(PER_TOKEN).requires_grad_(),)
    assert torch.autograd.gradcheck(lambda per_token: aggregate(per_token, TOKENS, mode, 3), inputs)


def test_what_a_step_is_divided_by():
    """Three rows of 3, 1 and 0 tokens: 4 tokens, 2 rows that have one, 3 rows of at most 7."""
    mask = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    assert step_denominator(mask, "token_mean", 7) == 4.0
    assert step_denominator(mask, "sequence_mean", 7) == 2.0
    assert step_denominator(mask, "sum_over_limit", 7) == 21.0


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sum_over_limit"])
@given(rows=st.integers(1, 4), limit=st.integers(1, 5))
def test_a_constant_loss_of_full_responses_is_itself(mode, rows, limit):
    per_token, mask = torch.full((rows, limit), 2.5, dtype=torch.float64), torch.ones(rows, limit).bool()
    exactly(aggregate(per_token, mask, mode, step_denominator(mask, mode, limit)), f64(2.5))


@given(seed=SEEDS)
def test_a_constant_denominator_sees_no_length(seed):
    mask = some_mask(seed, 4, 5)
    mask[0, 0] = True
    assert step_denominator(mask, "sum_over_limit", 6) == 24.0


def test_a_step_without_a_limit_tokens_or_a_known_mode_is_refused():
    with pytest.raises(ValueError, match="limit: expected at least one token, found 0"):
        step_denominator(TOKENS, "sum_over_limit", 0)
    with pytest.raises(ValueError, match="mask: expected at least one True, found none"):
        step_denominator(torch.zeros_like(TOKENS), "token_mean", 5)
    with pytest.raises(ValueError, match="mode: expected token_mean, sequence_mean or sum_over_limit, found 'mean'"):
        step_denominator(TOKENS, "mean", 5)
