from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.logprobs import token_logprobs, token_logprobs_and_entropy, vocabulary_logprobs

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

LOGITS = st.lists(st.floats(-20, 20), min_size=4, max_size=4).map(f64)
NEG_INF = float("-inf")


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp(logit / temperature) for logit in logits]
    return [weight / math.fsum(weights) for weight in weights]


def every_token(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    vocabulary = logits.shape[-1]
    return token_logprobs(logits.expand(vocabulary, vocabulary), torch.arange(vocabulary), temperature)


def entropy(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """That beside the logprobs; it is the same for every token."""
    tokens = torch.zeros(logits.shape[:-1], dtype=torch.long)
    return token_logprobs_and_entropy(logits, tokens, temperature).entropy


def test_logprobs_of_odds_one_to_three():
    """Logits 0 and ln 3 are odds of 1 to 3; at temperature 1/2 squared, 1 to 9; at 2, 1 to sqrt 3."""
    logits = f64([[0.0, math.log(3)]] * 2)
    tokens = torch.tensor([0, 1])
    exactly(token_logprobs(logits, tokens), f64([math.log(1 / 4), math.log(3 / 4)]))
    exactly(token_logprobs(logits, tokens, 0.5), f64([math.log(1 / 10), math.log(9 / 10)]))
    root = math.sqrt(3)
    exactly(token_logprobs(logits, tokens, 2.0), f64([math.log(1 / (1 + root)), math.log(root / (1 + root))]))


def test_any_leading_dimensions():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[0, 1, 2], [3, 4, 0]])
    result = token_logprobs(logits, tokens)
    assert result.shape == (2, 3)
    assert_close(result[1, 0], token_logprobs(logits[1, 0], tokens[1, 0]))
    assert entropy(logits).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_tokens_may_be_of_any_integer_type(dtype):
    logits = f64([[0.0, math.log(3)]])
    exactly(token_logprobs(logits, torch.tensor([1], dtype=dtype)), f64([math.log(3 / 4)]))


@given(logits=LOGITS, temperature=st.floats(0.1, 5))
def test_probabilities_sum_to_one(logits, temperature):
    exactly(every_token(logits, temperature).exp().sum(), f64(1.0))


@given(logits=LOGITS, shift=st.floats(-30, 30))
def test_a_shift_of_the_logits_changes_nothing(logits, shift):
    exactly(every_token(logits + shift), every_token(logits))


@given(logits=LOGITS, temperature=st.floats(0.2, 5))
def test_token_logprobs_are_taken_from_vocabulary_logprobs(logits, temperature):
    assert torch.equal(every_token(logits, temperature), vocabulary_logprobs(logits, temperature))


@given(logits=LOGITS, temperature=st.floats(0.2, 5))
def test_logprobs_and_entropy_agree_with_plain_python(logits, temperature):
    probabilities = softmax(logits.tolist(), temperature)
    exactly(every_token(logits, temperature).exp(), f64(probabilities))
    exactly(entropy(logits, temperature).item(), -math.fsum(p * math.log(p) for p in probabilities if p > 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_widened_first(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(6, 5000, generator=generator)).to(dtype)
    tokens = torch.randint(5000, (6,), generator=generator)
    for half, wide in [
        (token_logprobs(logits, tokens, 0.7), token_logprobs(logits.float(), tokens, 0.7)),
        (vocabulary_logprobs(logits, 0.7), vocabulary_logprobs(logits.float(), 0.7)),
        (entropy(logits, 0.7), entropy(logits.float(), 0.7)),
    ]:
        assert half.dtype == torch.float32
        assert torch.equal(half, wide)


def test_a_large_offset_of_the_logits_costs_no_digits():
    """In float32 the neighbours of 10000 are .001 away, so "logit minus logsumexp" would be off by .0002."""
    logits = torch.tensor([1e4, 1e4 - 1.0, -1e4])
    expected = torch.tensor([-math.log(1 + math.exp(-1)), -1 - math.log(1 + math.exp(-1))])
    for logprobs in (vocabulary_logprobs(logits), every_token(logits)):
        assert_close(logprobs[:2], expected, rtol=0, atol=2e-7)
        assert_close(logprobs[2], expected[0] - 2e4, rtol=1e-6, atol=0)


def test_a_banned_token_has_no_part_in_entropy():
    logits = f64([0.0, math.log(3), NEG_INF]).requires_grad_()
    expected = -(math.log(1 / 4) / 4 + 3 * math.log(3 / 4) / 4)
    exactly(entropy(logits), f64(expected))
    (gradient,) = torch.autograd.grad(entropy(logits), logits)
    assert gradient.isfinite().all() and gradient[2] == 0


def test_entropy_of_equal_logits_is_log_v():
    exactly(entropy(f64([[3.0] * 7, [0.0] * 7])), f64([math.log(7)] * 2))


def test_entropy_of_odds_one_to_three():
    """Two bits minus three quarters of log2 3, in nats: 2 ln 2 - 3/4 ln 3."""
    exactly(entropy(f64([0.0, math.log(3)])), f64(2 * math.log(2) - 0.75 * math.log(3)))


@given(logits=LOGITS, temperature=st.floats(0.2, 5))
def test_entropy_is_log_v_minus_kl_from_uniform(logits, temperature):
    logprobs, of_uniform = (logits / temperature).log_softmax(dim=-1), torch.full_like(logits, -math.log(4))
    kl_from_uniform = torch.nn.functional.kl_div(of_uniform, logprobs, reduction="sum", log_target=True)
    exactly(entropy(logits, temperature), math.log(4) - kl_from_uniform)


def test_gradients_in_float64():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    tokens = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, tokens, 0.7), (logits,))
    assert torch.autograd.gradcheck(lambda x: vocabulary_logprobs(x, 0.7), (logits,))
    assert torch.autograd.gradcheck(lambda x: entropy(x, 0.7), (logits,))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_above_zero(temperature):
    for call in (
        lambda: token_logprobs(torch.zeros(1, 2), torch.tensor([0]), temperature),
        lambda: entropy(torch.zeros(1, 2), temperature),
    ):
        with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
            call()


@pytest.mark.parametrize("token", [-1, -100, 2])
def test_a_token_outside_of_the_vocabulary_is_refused(token):
    with pytest.raises(ValueError, match=r"tokens: expected 0 .. 1"):
        token_logprobs(torch.zeros(1, 2), torch.tensor([token]))


def test_integer_logits_and_real_tokens_are_refused():
    with pytest.raises(ValueError, match="logits: expected a floating dtype"):
        token_logprobs(torch.zeros(1, 2).long(), torch.tensor([0]))
    with pytest.raises(ValueError, match="tokens: expected an integer dtype"):
        token_logprobs(torch.zeros(1, 2), torch.tensor([0.0]))


@given(LOGITS, st.floats(0.1, 10))
def test_logprobs_beside_entropy_are_token_logprobs(logits, temperature):
    logits, tokens = logits.expand(4, 4), torch.arange(4)
    both = token_logprobs_and_entropy(logits, tokens, temperature)
    assert torch.equal(both.logprobs, token_logprobs(logits, tokens, temperature))
    with pytest.raises(ValueError, match="tokens"):
        token_logprobs_and_entropy(logits, tokens + 1)
