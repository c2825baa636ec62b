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
_ARCHITECTURES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")


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
    sequence_lengths: list[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence, computed in float32 or wider.

    In half precision the CPU's kernels are up to four times slower than in float32; see infra/decisions.

    Shapes: query (1, heads, S, D), key and value (1, key-value heads, S, D), S = sum(sequence_lengths) ->
        (1, S, heads, D). Without sequence_lengths as Hugging Face's own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dtype = query.dtype
    if query.device.type == "cpu":
        query, key, value = (part.to(torch.promote_types(dtype, torch.float32)) for part in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        if sequence_lengths is None:
            if attention_mask is None:  # see `_mask`: whole sequences, which a window may cut
                attention_mask = _window(query.shape[2], options.get("sliding_window"), query.device)
            output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
            return output.to(dtype), None
        window, scale, shared = options.get("sliding_window"), options.get("scaling"), key.shape[1] != query.shape[1]
        parts = [
            scaled_dot_product_attention(
                query_part,
                key_part,
                value_part,
                attn_mask=_window(query_part.shape[2], window, query.device),
                is_causal=window is None,
                scale=scale,
                enable_gqa=shared,
            )
            for query_part, key_part, value_part in zip(
                *(torch.split(whole, sequence_lengths, dim=2) for whole in (query, key, value)), strict=True
            )
        ]
    return torch.cat(parts, dim=2).transpose(1, 2).to(dtype).contiguous(), None


def _window(length: int, width: int | None, device: torch.device) -> Tensor | None:
    """Which of the `width` last tokens each token sees, itself included. Shapes: (length, length)."""
    if width is None:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=device)
    return seen.tril().triu(1 - width)
