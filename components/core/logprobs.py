"""From logits to logprobs and entropy, at the sampling temperature.

Computed in float32 or wider: in bfloat16 a log softmax over a vocabulary is wrong in the second digit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from components.core.checks import require, require_float, require_integer, require_shape


class LogprobsAndEntropy(NamedTuple):
    """Shapes: (...) each. Units: nats."""

    logprobs: Tensor
    entropy: Tensor


def vocabulary_logprobs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Logprob of every token of the vocabulary: log softmax(logits / temperature).

    Shapes: logits (..., V) -> (..., V), float32 (float64 for float64 logits).
    Units: nats.
    Raises: ValueError for logits of integers, or a temperature that is not above 0.

    Holds:
        probabilities_sum_to_one: sum over the vocabulary of exp(logprob) is 1.
        a_shift_of_the_logits_changes_nothing: logits + c gives the same logprobs.
        half_precision_logits_are_widened_first: bfloat16 logits give what their float32 copies give.
        a_large_offset_of_the_logits_costs_no_digits: the maximum is subtracted before anything else.
    """
    require_float(logits=logits)
    require(0 < temperature < math.inf, "temperature", expected="a finite number above 0", found=temperature)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (wide / temperature).log_softmax(dim=-1)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Logprob of each token under softmax(logits / temperature).

    log p(token) = z_token - logsumexp(z),  z = logits / temperature

    Shapes: logits (..., V), tokens (...) -> (...), float32 (float64 for float64 logits).
    Units: nats.
    Raises: ValueError for shapes, a temperature that is not above 0, or a token outside of 0 .. V-1 (on the CPU; a
    GPU refuses it in its own words).

    Holds:
        token_logprobs_are_taken_from_vocabulary_logprobs: to the bit.
        logprobs_and_entropy_agree_with_plain_python: at any temperature.
    """
    _require_tokens(logits, tokens)
    return _gathered(vocabulary_logprobs(logits, temperature), tokens)


def token_logprobs_and_entropy(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> LogprobsAndEntropy:
    """`token_logprobs`, and the entropy of softmax(logits / temperature), from one log softmax.

    entropy = - sum_v p_v log p_v; a token of probability 0 adds 0.

    Shapes: logits (..., V), tokens (...) -> two of (...), float32 (float64 for float64 logits).
    Units: nats.
    Raises: ValueError as token_logprobs.

    Holds:
        logprobs_beside_entropy_are_token_logprobs: to the bit.
        entropy_of_equal_logits_is_log_v: the largest entropy there is.
        entropy_is_log_v_minus_kl_from_uniform: H(p) = log V - KL(p, uniform).
    """
    _require_tokens(logits, tokens)
    logprobs = vocabulary_logprobs(logits, temperature)
    return LogprobsAndEntropy(_gathered(logprobs, tokens), _entropy(logprobs))


def _require_tokens(logits: Tensor, tokens: Tensor) -> None:
    require_integer(tokens=tokens)
    require_shape(logits.shape[:-1], tokens=tokens)
    if tokens.device.type != "cpu":
        return  # to look would wait for the device; gather refuses there
    vocabulary = logits.shape[-1]
    known = bool(((tokens >= 0) & (tokens < vocabulary)).all())
    require(known, "tokens", expected=f"0 .. {vocabulary - 1}", found="a token outside of the vocabulary")


def _gathered(logprobs: Tensor, tokens: Tensor) -> Tensor:
    return logprobs.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)


def _entropy(logprobs: Tensor) -> Tensor:
    probabilities = logprobs.exp()
    return -(probabilities * torch.where(probabilities > 0, logprobs, 0)).sum(dim=-1)
