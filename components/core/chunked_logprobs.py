"""Logprobs and entropy from what the LM head reads, a part of the vocabulary at a time.

A table of N tokens by V logits is the largest thing in memory where V is large, and it is needed several times over
for its softmax and gradients. Here no more than N by `chunk` of it is there at once: the sums over the vocabulary are
carried along from chunk to chunk, and the backward pass makes each chunk again.

With z = (W h + b) / temperature, m the largest z so far, s = sum exp(z - m) and a = sum exp(z - m) (z - m):

    when m becomes m':   a <- exp(m - m') (a + s (m - m')),   s <- exp(m - m') s
    logprob = (z_y - m) - log s,   entropy = log s - a / s

    d logprob / d z_v = 1[v = y] - p_v
    d entropy / d z_v = -p_v (log p_v + entropy)

Source of the sums: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax" (arXiv:1805.02867); of the
pass in chunks with logits made twice: Wijmans et al. 2024, "Cut your losses in large-vocabulary language models"
(arXiv:2411.09009). The gradients follow from the definitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from components.core.checks import require, require_float, require_integer, require_rank, require_shape
from components.core.logprobs import LogprobsAndEntropy


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, tokens: Tensor, *, chunk: int, bias: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Logprob of each token under softmax((W h + b) / temperature), without a table of all logits.

    Products are made in the dtype of `hidden`, as the LM head would; all else in float32 or wider.

    Args:
        hidden: what the LM head reads.
        weight, bias: the LM head's, finite.
        chunk: tokens of the vocabulary that are looked at together.

    Shapes: hidden (N, H), weight (V, H), tokens (N,), bias (V,) -> (N,), float32 (float64 for float64 hidden).
    Units: nats.
    Raises: ValueError for shapes, a chunk below 1, a temperature that is not above 0, or a token outside of 0 .. V-1
    (on the CPU; elsewhere to look would wait for the device).

    Holds:
        chunked_logprobs_are_those_of_the_table: token_logprobs of the logits, within rounding, for any chunk.
        gradients_are_those_of_the_table: with respect to hidden, weight and bias.
    """
    _require(hidden, weight, tokens, bias, chunk, temperature)
    logprobs: Tensor = _Chunked.apply(hidden, weight, bias, tokens, temperature, chunk, False)[0]  # type: ignore[no-untyped-call]
    return logprobs


def chunked_logprobs_and_entropy(
    hidden: Tensor, weight: Tensor, tokens: Tensor, *, chunk: int, bias: Tensor | None = None, temperature: float = 1.0
) -> LogprobsAndEntropy:
    """`chunked_logprobs`, and the entropy of the distributions that the tokens were drawn from.

    Shapes: hidden (N, H), weight (V, H), tokens (N,), bias (V,) -> two of (N,), float32 (float64 for float64 hidden).
    Units: nats.
    Raises: ValueError as chunked_logprobs.

    Holds:
        chunked_logprobs_beside_entropy_are_chunked_logprobs: to the bit.
        chunked_entropy_is_that_of_the_table: token_logprobs_and_entropy of the logits, within rounding, for any chunk.
        a_large_offset_costs_no_digits: of logprobs and entropy, wherever the largest logit lies.
    """
    _require(hidden, weight, tokens, bias, chunk, temperature)
    return LogprobsAndEntropy(*_Chunked.apply(hidden, weight, bias, tokens, temperature, chunk, True))  # type: ignore[no-untyped-call]


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        chunk: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Logprobs, and entropy if asked for. Shapes: see `chunked_logprobs`. Raises: nothing."""
        largest = total = weighted = chosen = hidden.new_zeros(len(hidden), dtype=_wide(hidden))
        for start, logits in _chunks(hidden, weight, bias, temperature, chunk):
            own = tokens.long() - start
            is_here = (own >= 0) & (own < logits.shape[1])
            there = logits.gather(1, own.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
            chosen = torch.where(is_here, there, chosen)
            top = logits.amax(dim=1)
            if start > 0:
                top = torch.maximum(largest, top)
                moved = largest - top
                weighted = moved.exp() * (weighted + total * moved)
                total = moved.exp() * total
            largest = top
            below = torch.sub(logits, largest[:, None], out=logits)
            shares = below.exp()
            total = total + shares.sum(dim=1)
            if with_entropy:
                weighted = weighted + torch.mul(shares, below, out=shares).sum(dim=1)
        log_total = total.log()
        entropy = log_total - weighted / total if with_entropy else None
        ctx.save_for_backward(hidden, weight, bias, tokens, largest, log_total, entropy)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        return (chosen - largest) - log_total, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_logprobs: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of hidden, weight and bias. Shapes: theirs, of (N,) each. Raises: nothing."""
        hidden, weight, bias, tokens, largest, log_total, entropy = ctx.saved_tensors
        of_hidden, of_weight, of_bias, *_ = ctx.needs_input_grad
        to_hidden = hidden.new_zeros(hidden.shape, dtype=largest.dtype) if of_hidden else None
        to_weight = torch.empty_like(weight) if of_weight else None
        to_bias = torch.empty_like(bias) if of_bias else None
        for start, logits in _chunks(hidden, weight, bias, ctx.temperature, ctx.chunk):
            size = logits.shape[1]
            logprobs = torch.sub(logits, (largest + log_total)[:, None], out=logits)
            probabilities = logprobs.exp()
            slope = torch.zeros_like(logits)
            if of_logprobs is not None:
                is_chosen = torch.arange(start, start + size, device=tokens.device) == tokens[:, None]
                slope = (is_chosen.to(slope.dtype) - probabilities) * of_logprobs[:, None]
            if of_entropy is not None:
                slope = slope - probabilities * (logprobs + entropy[:, None]) * of_entropy[:, None]
            slope = (slope / ctx.temperature).to(hidden.dtype)
            with _as_given(hidden):
                if to_hidden is not None:
                    to_hidden = to_hidden + slope @ weight[start : start + size].to(hidden.dtype)
                if to_weight is not None:
                    torch.add(slope.T @ hidden, 0, out=to_weight.narrow(0, start, size))
                if to_bias is not None:
                    torch.add(slope.sum(dim=0), 0, out=to_bias.narrow(0, start, size))
        return None if to_hidden is None else to_hidden.to(hidden.dtype), to_weight, to_bias, None, None, None, None


def _chunks(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, chunk: int
) -> Iterator[tuple[int, Tensor]]:
    """The logits at the temperature, chunk by chunk, each with where it begins. Shapes: (N, chunk) and less."""
    for start in range(0, len(weight), chunk):
        with _as_given(hidden):
            logits = hidden @ weight[start : start + chunk].to(hidden.dtype).T
            if bias is not None:
                logits = logits + bias[start : start + chunk].to(hidden.dtype)
        yield start, logits.to(_wide(hidden)) / temperature


def _as_given(hidden: Tensor) -> torch.autocast:
    """Forward and backward make the same products, whatever autocast says around one of them."""
    return torch.autocast(hidden.device.type, enabled=False)


def _wide(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


def _require(
    hidden: Tensor, weight: Tensor, tokens: Tensor, bias: Tensor | None, chunk: int, temperature: float
) -> None:
    require_float(hidden=hidden, weight=weight)
    require_rank(2, hidden=hidden, weight=weight)
    require_integer(tokens=tokens)
    require_shape(hidden.shape[:1], tokens=tokens)
    require_shape((len(weight), hidden.shape[1]), weight=weight)
    if bias is not None:
        require_shape((len(weight),), bias=bias)
    require(chunk >= 1, "chunk", expected="1 or more", found=chunk)
    require(0 < temperature < math.inf, "temperature", expected="a finite number above 0", found=temperature)
    if tokens.device.type == "cpu":
        known = bool(((tokens >= 0) & (tokens < len(weight))).all())
        require(known, "tokens", expected=f"0 .. {len(weight) - 1}", found="a token outside of the vocabulary")
