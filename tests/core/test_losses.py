"""How losses of tokens are added up, and what holds for all losses: masks and gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_inputs import INF, NAN, SEEDS, exactly, f64, normal, some_mask, surrogate
from torch import Tensor

from components.core.losses import aggregate, bradley_terry_loss, dpo_loss, expectile_loss, policy_loss, value_loss

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


# what holds for all
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
