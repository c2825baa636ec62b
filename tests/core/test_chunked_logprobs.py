from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from components.core.chunked_logprobs import chunked_logprobs, chunked_logprobs_and_entropy
from components.core.logprobs import token_logprobs, token_logprobs_and_entropy

N, H, V = 5, 4, 11
CHUNKS = [1, 2, 4, 10, 11, 64]  # 4 and 10 do not divide 11
every_chunk = pytest.mark.parametrize("chunk", CHUNKS)
with_and_without_bias = pytest.mark.parametrize("biased", [False, True])
closely = partial(assert_close, rtol=0, atol=1e-5)


def numbers(seed: int = 0, dtype: torch.dtype = torch.float32, biased: bool = True, n: int = N, v: int = V):
    """hidden, weight, tokens, bias; the tokens of the first and last chunk among them."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (2 * torch.randn(rows, H, generator=generator, dtype=torch.float64).to(dtype) for rows in (n, v))
    bias = torch.randn(v, generator=generator, dtype=torch.float64).to(dtype) if biased else None
    tokens = torch.randint(v, (n,), generator=generator)
    tokens[0], tokens[-1] = 0, v - 1
    return hidden, weight, tokens, bias


def table(hidden, weight, bias):
    logits = hidden @ weight.T
    return logits if bias is None else logits + bias


@every_chunk
@with_and_without_bias
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunked_logprobs_are_those_of_the_table(chunk, biased, temperature):
    hidden, weight, tokens, bias = numbers(biased=biased)
    found = chunked_logprobs(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=temperature)
    assert found.dtype == torch.float32
    closely(found, token_logprobs(table(hidden, weight, bias), tokens, temperature))


@every_chunk
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunked_entropy_is_that_of_the_table(chunk, temperature):
    hidden, weight, tokens, bias = numbers(seed=1)
    found = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=temperature)
    expected = token_logprobs_and_entropy(table(hidden, weight, bias), tokens, temperature)
    closely(found.logprobs, expected.logprobs)
    closely(found.entropy, expected.entropy)


@every_chunk
def test_chunked_logprobs_beside_entropy_are_chunked_logprobs(chunk):
    hidden, weight, tokens, bias = numbers(seed=2)
    beside = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=0.7)
    assert torch.equal(
        beside.logprobs, chunked_logprobs(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=0.7)
    )


@every_chunk
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_those_of_the_table(chunk, with_entropy, dtype):
    """Both outcomes weighted by numbers of their own, so that no row and neither term can hide behind the other."""
    hidden, weight, tokens, bias = (part.requires_grad_() if part.is_floating_point() else part for part in numbers(3))
    hidden, weight, bias = (part.detach().to(dtype).requires_grad_() for part in (hidden, weight, bias))
    shares = torch.linspace(-1.0, 2.0, N, dtype=dtype)
    if with_entropy:
        found = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=0.6)
        expected = token_logprobs_and_entropy(table(hidden, weight, bias), tokens, 0.6)
        sums = [(both.logprobs * shares + both.entropy * shares.flip(0)).sum() for both in (found, expected)]
    else:
        found = chunked_logprobs(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=0.6)
        sums = [(found * shares).sum(), (token_logprobs(table(hidden, weight, bias), tokens, 0.6) * shares).sum()]
    ours, theirs = (torch.autograd.grad(total, (hidden, weight, bias)) for total in sums)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, rtol=0, atol=1e-11 if dtype == torch.float64 else 2e-5)  # reason: small, one a dtype


@every_chunk
def test_gradients_are_those_of_small_steps(chunk):
    hidden, weight, tokens, bias = numbers(4, torch.float64)
    leaves = tuple(part.requires_grad_() for part in (hidden, weight, bias))

    def both(hidden, weight, bias):
        return tuple(chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=chunk, bias=bias, temperature=1.3))

    assert torch.autograd.gradcheck(both, leaves)


def test_the_gradient_of_entropy_alone():
    """Nothing flows into the logprobs."""
    hidden, weight, tokens, bias = numbers(5, torch.float64)
    hidden.requires_grad_()
    found = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=4, bias=bias).entropy.sum()
    expected = token_logprobs_and_entropy(table(hidden, weight, bias), tokens).entropy.sum()
    assert_close(*(torch.autograd.grad(total, hidden)[0] for total in (found, expected)), rtol=0, atol=1e-12)


def test_a_frozen_head_is_given_no_gradient():
    hidden, weight, tokens, _ = numbers(6)
    hidden.requires_grad_()
    chunked_logprobs(hidden, weight, tokens, chunk=4).sum().backward()
    assert hidden.grad is not None and weight.grad is None


@every_chunk
def test_a_large_offset_costs_no_digits(chunk):
    """In float32 the neighbours of 20000 are .002 away. The largest logit comes first, in the middle, or last."""
    for order in ([1e4, 0.0, -1.0], [0.0, 1e4, -1.0], [-1.0, 0.0, 1e4], [0.0, 1e4, 1e4 - 1]):
        weight = torch.tensor(order)[:, None]
        hidden, tokens = torch.ones(3, 1), torch.arange(3)
        exact = torch.tensor(order, dtype=torch.float64)
        expected = exact.log_softmax(dim=0)
        found = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=chunk)
        near = expected > -100
        assert_close(found.logprobs[near].double(), expected[near], rtol=0, atol=2e-7)
        entropy = -(expected.exp() * expected).sum()
        assert_close(found.entropy.double(), entropy.expand(3), rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_half_precision_are_made_in_float32(dtype):
    """The logits are those that the head itself would give; nothing after them is rounded."""
    hidden, weight, tokens, _ = numbers(7, dtype, n=40, v=5000)
    found = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=512)
    assert found.logprobs.dtype == found.entropy.dtype == torch.float32
    expected = token_logprobs_and_entropy((hidden @ weight.T).float(), tokens)
    assert_close(found.logprobs, expected.logprobs, rtol=0, atol=2e-5)
    assert_close(found.entropy, expected.entropy, rtol=0, atol=2e-5)


def test_autocast_around_the_forward_pass_changes_nothing():
    hidden, weight, tokens, bias = numbers(8)
    plain = chunked_logprobs(hidden, weight, tokens, chunk=4, bias=bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(chunked_logprobs(hidden, weight, tokens, chunk=4, bias=bias), plain)


def test_no_tensor_of_all_logits_is_made():
    """Of 300 tokens by 20,000 logits nothing larger than 300 by 1,000 is asked for, forth and back."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **kwargs or {})
            nonlocal largest
            for part in result if isinstance(result, tuple | list) else [result]:
                if isinstance(part, torch.Tensor):
                    largest = max(largest, part.numel())
            return result

    hidden, weight, tokens, _ = numbers(9, n=300, v=20_000)
    hidden.requires_grad_()
    with Watch():
        both = chunked_logprobs_and_entropy(hidden, weight, tokens, chunk=1000)
        (both.logprobs + both.entropy).sum().backward()
    assert largest == 300 * 1000


def test_nobody_is_left_out_where_there_are_no_tokens():
    hidden, weight, tokens, _ = numbers(10)
    found = chunked_logprobs_and_entropy(hidden[:0], weight, tokens[:0], chunk=4)
    assert found.logprobs.shape == found.entropy.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chunk": 0}, "chunk"),
        ({"temperature": 0.0}, "temperature"),
        ({"tokens": torch.tensor([0, 1, 2, 3, V])}, "tokens"),
        ({"bias": torch.zeros(V - 1)}, "bias"),
        ({"weight": torch.zeros(V, H + 1)}, "weight"),
        ({"hidden": torch.zeros(N, H, dtype=torch.long)}, "hidden"),
    ],
)
def test_what_cannot_be_is_refused(changes, named):
    hidden, weight, tokens, bias = numbers(11)
    arguments = {"hidden": hidden, "weight": weight, "tokens": tokens, "bias": bias, "chunk": 4} | changes
    for function in (chunked_logprobs, chunked_logprobs_and_entropy):
        with pytest.raises(ValueError, match=f"^{named}: expected"):
            function(**arguments)
