"""Against rlax, DeepMind's reinforcement learning in JAX: written by others, in another framework."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import rlax
import torch
from torch.testing import assert_close

from components.core.advantages import gae
from components.core.logprobs import token_logprobs_and_entropy
from components.core.losses import policy_loss

# rlax points to distrax, which has the same formulas
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(autouse=True)
def float64_in_jax():
    with jax.enable_x64(True):
        yield


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(ours: torch.Tensor, theirs: jax.Array) -> None:
    assert_close(ours.detach(), torch.from_numpy(np.array(theirs)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.99, 1.0), (0.9, 0.0), (0.5, 0.5)])
def test_gae(gamma, gae_lambda):
    """Rows of 1 to 7 tokens; rlax gets each row without its padding, and a value of 0 behind its end."""
    rewards, values = normal(1, 7, 7), normal(2, 7, 7)
    mask = torch.arange(7) <= torch.arange(7).unsqueeze(1)
    ours = gae(rewards, values, mask, gamma, gae_lambda).advantages
    for row in range(7):
        length = row + 1
        theirs = rlax.truncated_generalized_advantage_estimation(
            r_t=rewards[row, :length].numpy(),
            discount_t=np.full(length, gamma),
            lambda_=gae_lambda,
            values=np.append(values[row, :length].numpy(), 0.0),
        )
        same(ours[row, :length], theirs)


@pytest.mark.parametrize("epsilon", [0.1, 0.2, 0.5])
def test_clipped_surrogate_and_its_gradient(epsilon):
    old, advantages = normal(3, 1, 40), normal(4, 1, 40)
    new = (old + 0.5 * normal(5, 1, 40)).requires_grad_()
    mask = torch.ones(1, 40, dtype=torch.bool)
    loss = policy_loss(new, old, advantages, mask, clip_low=epsilon, clip_high=epsilon, dual_clip=None).loss
    (gradient,) = torch.autograd.grad(loss.mean(), new)

    def theirs(new_logprobs: jax.Array) -> jax.Array:
        ratios = jax.numpy.exp(new_logprobs - old.numpy()[0])
        return rlax.clipped_surrogate_pg_loss(ratios, advantages.numpy()[0], epsilon)

    their_loss, their_gradient = jax.value_and_grad(theirs)(new.detach().numpy()[0])
    same(loss.mean(), their_loss)
    same(gradient[0], their_gradient)
    assert (gradient == 0).any() and (gradient != 0).any()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logprobs_and_entropy(temperature):
    logits, tokens = 3 * normal(6, 8, 5), torch.arange(8) % 5
    distribution = rlax.softmax(temperature)
    logprobs, entropy = token_logprobs_and_entropy(logits, tokens, temperature)
    same(logprobs, distribution.logprob(tokens.numpy(), logits.numpy()))
    same(entropy, distribution.entropy(logits.numpy()))
