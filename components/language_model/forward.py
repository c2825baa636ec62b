"""Forward passes over whole sequences: logits, logprobs, values and scores, aligned with the response tokens.

Index t of a (B, T) result belongs to response token t: its logprob given everything before it, or the value of the
state before it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.core.logprobs import entropy, token_logprobs
from components.core.masks import last_true_index
from components.language_model.sequences import Sequences, microbatches


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, so that padding moves nothing. Shapes: (B, S) -> (B, S)."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def response_logits(policy: nn.Module, sequences: Sequences) -> Tensor:
    """Logits that predict each response token. Shapes: (B, T, V)."""
    mask = sequences.mask
    logits: Tensor = policy(
        input_ids=sequences.tokens,
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=sequences.response_tokens.shape[1] + 1,
    ).logits
    return logits[:, :-1]


def response_logprobs(policy: nn.Module, sequences: Sequences, temperature: float) -> Tensor:
    """Logprobs of the response tokens. Shapes: (B, T). Units: nats."""
    return token_logprobs(response_logits(policy, sequences), sequences.response_tokens, temperature)


def response_logprobs_and_entropy(policy: nn.Module, sequences: Sequences, temperature: float) -> tuple[Tensor, Tensor]:
    """Logprobs of the response tokens, and the entropy of the distributions they were drawn from.

    Shapes: (B, T) each. Units: nats.
    """
    logits = response_logits(policy, sequences)
    return token_logprobs(logits, sequences.response_tokens, temperature), entropy(logits, temperature)


def _scalars(model: nn.Module, sequences: Sequences) -> Tensor:
    mask = sequences.mask
    scalars: Tensor = model(input_ids=sequences.tokens, attention_mask=mask.long(), position_ids=position_ids(mask))
    return scalars


def response_values(model: nn.Module, sequences: Sequences) -> Tensor:
    """The value of the state before each response token. Shapes: (B, T)."""
    start = sequences.prompt_tokens.shape[1] - 1
    return _scalars(model, sequences)[:, start : start + sequences.response_tokens.shape[1]]


def sequence_scores(model: nn.Module, sequences: Sequences) -> Tensor:
    """The reward model's score, read at the last real token of the response. Shapes: (B,)."""
    last = last_true_index(sequences.response_mask) + sequences.prompt_tokens.shape[1]
    return _scalars(model, sequences).gather(1, last[:, None]).squeeze(1)


@torch.no_grad()
def in_microbatches(
    function: Callable[[Sequences], tuple[Tensor, ...]], sequences: Sequences, size: int
) -> tuple[Tensor, ...]:
    """Apply a function of sequences part by part and put the results, (B,) or (B, T), back in order; no gradients."""
    results: list[Tensor] = []
    width = sequences.response_tokens.shape[1]
    for index, part in microbatches(sequences, size):
        outputs = function(part)
        if not results:
            results = [
                output.new_zeros((len(sequences), width) if output.dim() == 2 else (len(sequences),))
                for output in outputs
            ]
        for result, output in zip(results, outputs, strict=True):
            if output.dim() == 2:
                result[index, : output.shape[1]] = output
            else:
                result[index] = output
    return tuple(results)
