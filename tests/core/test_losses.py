"""What holds for all losses: masks and gradients."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import given
from loss_inputs import INF, NAN, SEEDS, exactly, normal, some_mask, surrogate
from torch import Tensor

from components.core.losses import bradley_terry_loss, dpo_loss, expectile_loss, policy_loss, value_loss


def losses_of_masked_inputs(seed: int, outside: float) -> list[Tensor]:
    """Loss and gradient of surrogate and value loss, with this number outside of the mask."""
    mask = some_mask(seed, 3, 4)
    x, y, z = (torch.where(mask, tensor, outside) for tensor in normal(seed, 3, 4, count=3))
    results: list[Tensor] = []
    for loss in (
        lambda leaf: policy_loss(leaf, y, z, mask, clip_low=0.2, clip_high=0.2, dual_clip=3.0).loss,
        lambda leaf: value_loss(leaf, y, z, mask, value_clip_range=0.2).loss,
        lambda leaf: value_loss(leaf, y, z, mask, value_clip_range=None).loss,
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
    assert check(lambda diff: expectile_loss(diff, 0.7))
    pairs = tuple(tensor.requires_grad_() for tensor in normal(2, 5, count=2))
    refs = normal(3, 5, count=2)
    assert torch.autograd.gradcheck(lambda a, b: bradley_terry_loss(a, b, 0.5), pairs)
    assert torch.autograd.gradcheck(lambda a, b: dpo_loss(a, b, *refs, beta=0.3, label_smoothing=0.1), pairs)
    assert torch.autograd.gradcheck(lambda a, b: dpo_loss(a, b, *refs, beta=0.3, form="ipo"), pairs)
