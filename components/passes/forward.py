"""Forward passes over whole sequences: logprobs, values and scores, aligned with the response tokens.

Index t of a (B, T) result belongs to response token t: its logprob given everything before it, or the value of the
state before it. Models that take packed sequences are given no padding; all others get padded batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from components.core.chunked_logprobs import chunked_logprobs, chunked_logprobs_and_entropy
from components.core.logprobs import token_logprobs, token_logprobs_and_entropy
from components.core.masks import last_true_index
from components.passes.attention import takes_packed_sequences
from components.passes.sequences import Packed, Sequences, microbatches


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, so that padding moves nothing. Shapes: (B, S) -> (B, S)."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def prepared(sequences: Sequences | Packed, *models: nn.Module) -> Sequences | Packed:
    """Packed, if all of these models take that: once for all of them.

    Filled up in half precision on the CPU, where matrix products make a kernel for every shape that they see: a shape
    that was seen before costs less than some tokens more. See infra/decisions/0008.
    """
    if isinstance(sequences, Packed) or not all(takes_packed_sequences(model) for model in models):
        return sequences
    makes_kernels = sequences.prompt_tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return sequences.packed(multiple_of=64 if makes_kernels else 1)


def response_logprobs(policy: nn.Module, sequences: Sequences | Packed, temperature: float) -> Tensor:
    """Logprobs of the response tokens, 0 where there is none. Shapes: (B, T). Units: nats."""
    sequences = prepared(sequences, policy)
    chunk = vocabulary_chunk(policy)
    if chunk is not None:
        return _in_place(_in_chunks(policy, sequences, temperature, chunk, with_entropy=False)[:, 0], sequences)
    return _in_place(token_logprobs(_logits(policy, sequences), _tokens(sequences), temperature), sequences)


def response_logprobs_and_entropy(
    policy: nn.Module, sequences: Sequences | Packed, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logprobs of the response tokens, and the entropy of the distributions they were drawn from, else 0.

    Shapes: (B, T) each. Units: nats.
    """
    sequences = prepared(sequences, policy)
    chunk = vocabulary_chunk(policy)
    if chunk is not None:
        logprobs, entropy = _in_chunks(policy, sequences, temperature, chunk, with_entropy=True).unbind(dim=1)
        return _in_place(logprobs, sequences), _in_place(entropy, sequences)
    both = token_logprobs_and_entropy(_logits(policy, sequences), _tokens(sequences), temperature)
    return _in_place(both.logprobs, sequences), _in_place(both.entropy, sequences)


def vocabulary_chunk(policy: Any) -> int | None:
    """How many tokens of the vocabulary a policy's logprobs are computed of at once; None for all of them."""
    inner = getattr(policy, "module", policy)  # what data parallelism wraps
    chunk: int | None = getattr(inner, "vocabulary_chunk", None)
    return chunk


def response_values(model: nn.Module, sequences: Sequences | Packed) -> Tensor:
    """The value of the state before each response token, 0 where there is none. Shapes: (B, T)."""
    sequences = prepared(sequences, model)
    if isinstance(sequences, Packed):
        values = model(**_packed_inputs(sequences))[0, sequences.before]
    else:
        start = sequences.prompt_tokens.shape[1] - 1
        values = model(**_padded_inputs(sequences))[:, start:-1][sequences.response_mask]
    return _in_place(values, sequences)


def sequence_scores(model: nn.Module, sequences: Sequences | Packed) -> Tensor:
    """The reward model's score, read at the last real token of the response. Shapes: (B,)."""
    sequences = prepared(sequences, model)
    if isinstance(sequences, Packed):
        scores: Tensor = model(**_packed_inputs(sequences))[0, sequences.last]
        return scores
    last = last_true_index(sequences.response_mask) + sequences.prompt_tokens.shape[1]
    scores = model(**_padded_inputs(sequences)).gather(1, last[:, None]).squeeze(1)
    return scores


def _logits(policy: nn.Module, sequences: Sequences | Packed) -> Tensor:
    """Logits that predict the response tokens, one behind the other, row by row. Shapes: (tokens, V)."""
    logits: Tensor = _output(policy, sequences).logits
    return _kept(logits, sequences)


def _in_chunks(
    policy: nn.Module, sequences: Sequences | Packed, temperature: float, chunk: int, *, with_entropy: bool
) -> Tensor:
    """Logprobs, and entropies if asked for, without a table of all logits. Shapes: (tokens, 1 or 2).

    The LM head answers with them in place of logits: inside of the model's own pass, where its weights are whole and
    its gradients are waited for, however the model is wrapped.
    """
    head = cast(Any, getattr(policy, "module", policy)).get_output_embeddings()
    tokens = _tokens(sequences)

    def answer(hidden: Tensor) -> Tensor:
        read, device = _kept(hidden, sequences), hidden.device.type
        if torch.is_autocast_enabled(device):
            read = read.to(torch.get_autocast_dtype(device))
        how: dict[str, Any] = {"chunk": chunk, "bias": getattr(head, "bias", None), "temperature": temperature}
        if with_entropy:
            return torch.stack(chunked_logprobs_and_entropy(read, head.weight, tokens, **how), dim=1)
        return chunked_logprobs(read, head.weight, tokens, **how)[:, None]

    head.forward = answer
    try:
        answers: Tensor = _output(policy, sequences).logits
    finally:
        del head.forward
    return answers


def _output(policy: nn.Module, sequences: Sequences | Packed) -> Any:
    if isinstance(sequences, Packed):
        return policy(**_packed_inputs(sequences), use_cache=False, logits_to_keep=sequences.before)
    width = sequences.response_tokens.shape[1]
    return policy(**_padded_inputs(sequences), use_cache=False, logits_to_keep=width + 1)


def _kept(column: Tensor, sequences: Sequences | Packed) -> Tensor:
    """Of what the LM head reads or gives, that of the response tokens, row by row. Shapes: (tokens, ...)."""
    return column[0] if isinstance(sequences, Packed) else column[:, :-1][sequences.response_mask]


def _tokens(sequences: Sequences | Packed) -> Tensor:
    """The response tokens, one behind the other, row by row. Shapes: (tokens,)."""
    if isinstance(sequences, Packed):
        return sequences.response_tokens
    return sequences.response_tokens[sequences.response_mask]


def _packed_inputs(packed: Packed) -> dict[str, Any]:
    return {
        "input_ids": packed.tokens,
        "attention_mask": None,
        "position_ids": packed.positions,
        "sequence_lengths": packed.lengths,
        "sequence_ends": packed.ends,
    }


def _padded_inputs(sequences: Sequences) -> dict[str, Tensor]:
    mask = sequences.mask
    return {"input_ids": sequences.tokens, "attention_mask": mask.long(), "position_ids": position_ids(mask)}


def _in_place(column: Tensor, sequences: Sequences | Packed) -> Tensor:
    """Numbers of response tokens, back in their rows. Shapes: (tokens, ...) -> (B, T, ...)."""
    if isinstance(sequences, Packed):
        return sequences.in_place(column)
    result = column.new_zeros(*sequences.response_mask.shape, *column.shape[1:])
    result[sequences.response_mask] = column
    return result


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
