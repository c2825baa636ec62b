"""Attention over packed sequences: B sequences lie one behind the other in one row, and none sees another.

Nothing is padded, so neither is anything computed of padding. It is registered with Hugging Face under a name of its
own, and a model that carries the name still does all else as before: batches with masks and caches go to its SDPA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_NAME = "proximal"
# Whose attention is known, and tested, to hand on all that it needs. All others work on padded batches.
_ARCHITECTURES = ("gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3")


def use_packed_attention(model: Any) -> Any:
    """Let a Hugging Face model take packed sequences, if its architecture is known to."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if model.config.model_type in _ARCHITECTURES and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, _attention)
        AttentionMaskInterface.register(_NAME, _mask)
        model.set_attn_implementation(_NAME)
    return model


def takes_packed_sequences(model: Any) -> bool:
    """Whether a model was given packed attention by `use_packed_attention`."""
    return getattr(getattr(model, "config", None), "_attn_implementation", None) == _NAME


def attention_dtype(part: Tensor) -> torch.dtype:
    """What attention to this query, key or value is computed in.

    On the CPU float32 or wider, as in half precision its kernels are up to four times slower; see infra/decisions. On a
    GPU what autocast says.
    """
    device = part.device.type
    if device == "cpu":
        return torch.promote_types(part.dtype, torch.float32)
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else part.dtype


def _mask(batch_size: int, q_length: int, kv_length: int, **options: Any) -> Tensor | None:
    """None for what `_attention` does without a mask: packed sequences, and one batch of whole ones."""
    from transformers.masking_utils import sdpa_mask

    if options.get("attention_mask") is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, **options)
    return mask


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: tuple[int, ...] | None = None,
    sequence_ends: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence; on a GPU in half precision by one kernel for all of them.

    Args:
        sequence_lengths, sequence_ends: the `lengths` and `ends` of a `Packed`.

    Shapes: query (1, heads, S, D), key and value (1, key-value heads, S, D), S = sum(sequence_lengths) ->
        (1, S, heads, D). Without sequence_lengths as Hugging Face's own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    device, computed_in = query.device.type, attention_dtype(query)
    # On the CPU it is widened, and the model goes on in its own; on a GPU it goes on in what it would be cast to next.
    given_back = query.dtype if device == "cpu" else computed_in
    query, key, value = (part.to(computed_in) for part in (query, key, value))
    window, scale = options.get("sliding_window"), options.get("scaling")
    with torch.autocast(device, enabled=False):
        if sequence_lengths is None or sequence_ends is None:
            if attention_mask is None:  # see `_mask`: whole sequences, which a window may cut
                attention_mask = _window(query.shape[2], window, query.device)
            output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        elif device == "cuda" and computed_in in (torch.float16, torch.bfloat16):
            output = _all_at_once(query, key, value, sequence_ends, max(sequence_lengths), window, scale)
        else:
            output = _one_by_one(query, key, value, sequence_lengths, window, scale)
    return output.to(given_back).contiguous(), None


def _all_at_once(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, window: int | None, scale: float | None
) -> Tensor:
    """By the kernel for sequences of unlike lengths, which GPUs have in half precision."""
    from torch.nn.attention.varlen import varlen_attn

    rows, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
    output = varlen_attn(
        rows,
        keys,
        values,
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),  # how many tokens before and after each it sees
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(output, Tensor)  # without the log-sum-exp, which was not asked for
    return output[None]


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], window: int | None, scale: float | None
) -> Tensor:
    parts = [
        scaled_dot_product_attention(
            query_part,
            key_part,
            value_part,
            attn_mask=_window(query_part.shape[2], window, query.device),
            is_causal=window is None,
            scale=scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for query_part, key_part, value_part in zip(
            *(torch.split(whole, list(lengths), dim=2) for whole in (query, key, value)), strict=True
        )
    ]
    return torch.cat(parts, dim=2).transpose(1, 2)


def _window(length: int, width: int | None, device: torch.device) -> Tensor | None:
    """Which of the `width` last tokens each token sees, itself included. Shapes: (length, length)."""
    if width is None:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=device)
    return seen.tril().triu(1 - width)
