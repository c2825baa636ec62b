"""A key-value cache with room for the whole response: a token is written into its place, and nothing else is copied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from components.passes.attention import attention_dtype


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Hugging Face's cache of one layer, which grows by concatenation, with room for tokens to come.

    `keys` and `values` are views of what is filled. Shapes: (B, heads, tokens, D).

    Args:
        stored_as: the dtype that they are kept in.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int, stored_as: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stored_as = stored_as
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._capacity = keys.shape[2] + room
        self._fill([keys, values])

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start = self._count
        self._count += key_states.shape[2]
        for stored, part in zip(self._stored, (key_states, value_states), strict=True):
            stored[:, :, start : self._count] = part
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        self._fill([stored[indices, :, : self._count] for stored in self._stored])

    def _fill(self, parts: list[Tensor]) -> None:
        self._count = parts[0].shape[2]
        shapes = [(*part.shape[:2], self._capacity, part.shape[3]) for part in parts]
        self._stored = [part.new_empty(shape, dtype=self._stored_as) for part, shape in zip(parts, shapes, strict=True)]
        for stored, part in zip(self._stored, parts, strict=True):
            stored[:, :, : self._count] = part
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = (stored[:, :, : self._count] for stored in self._stored)
        self.keys, self.values = keys, values
        return keys, values


def make_room(cache: Any, tokens: int, *, widened: bool = True) -> None:
    """Give the plain layers of a filled cache room for `tokens` more; layers of other kinds stay as they are.

    Args:
        widened: kept in what our attention computes in, so that it is cast once and not at every token. Attention of
            transformers' own is given keys and values in the dtype that it made.
    """
    layers: list[Any] = cache.layers
    plain = [type(layer) is DynamicLayer for layer in layers]
    cache.layers = [
        RoomyLayer(layer.keys, layer.values, tokens, attention_dtype(layer.keys) if widened else layer.keys.dtype)
        if is_plain
        else layer
        for layer, is_plain in zip(layers, plain, strict=True)
    ]
