"""The decode loop on a GPU: one step is recorded as a CUDA graph and replayed for every token.

A step for one token a row is hundreds of kernels that are shorter than the time Python takes to start them; a replay
starts them all at once. Nothing in a step may depend on numbers that Python reads, so the cache has its full size from
the start, and where the next token goes stands in device memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from components.engines.sampling import draw, require_sound
from components.models.text import Codec
from components.passes.attention import attention_dtype, takes_packed_sequences

_STEPS_BETWEEN_LOOKS = 8  # at which rows have ended; a look waits for the GPU
_COMPACTION_SHARE = 0.5  # of rows that ended: then the others go on alone, in a graph of their own
_ALIGNMENT = 8  # of the cache's length, in tokens: what attention kernels ask of a mask


def can_decode_on_gpu(cache: Any, device: torch.device) -> bool:
    """Whether a filled cache is one that `decode_on_gpu` can take over."""
    return device.type == "cuda" and all(type(layer) is DynamicLayer for layer in cache.layers)


def takes_ready_masks(policy: Any) -> bool:
    """Whether a policy's attention takes the mask of a step as it is; of others, eager would add it to its scores."""
    return takes_packed_sequences(policy) or policy.config._attn_implementation == "sdpa"


class FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Hugging Face's cache of one layer, at its full size. Shapes: keys and values (B, heads, capacity, D).

    Args:
        slot: (1,) where the next token goes; the caller moves it on.
    """

    def __init__(self, keys: Tensor, values: Tensor, capacity: int, slot: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device, self.is_initialized = attention_dtype(keys), keys.device, True
        self._slot = slot
        # Zeros: attention multiplies what the mask leaves out by 0, which memory as it comes may not survive.
        self.keys, self.values = (
            part.new_zeros(*part.shape[:2], capacity, part.shape[3], dtype=self.dtype) for part in (keys, values)
        )
        for stored, part in ((self.keys, keys), (self.values, values)):
            stored[:, :, : part.shape[2]] = part

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(2, self._slot, key_states.to(self.dtype))
        self.values.index_copy_(2, self._slot, value_states.to(self.dtype))
        return self.keys, self.values


class Decoding:
    """The rows that are being decoded; `step` draws a token for each and asks the policy for the next logits.

    Args:
        output: what the policy gave for the prompts, with a cache that `can_decode_on_gpu`.
        mask: (B, P) which of the prompts' tokens count.
        next_position: (B, 1) of each response's first token.
        uniforms: (B, T) uniform numbers.
    """

    def __init__(
        self,
        policy: Any,
        output: Any,
        mask: Tensor,
        next_position: Tensor,
        uniforms: Tensor,
        temperature: float,
        codec: Codec,
    ) -> None:
        count, filled = mask.shape
        length = uniforms.shape[1]
        capacity = -(-(filled + length) // _ALIGNMENT) * _ALIGNMENT
        self._policy, self._temperature, self._codec, self._pad_id = policy, temperature, codec, codec.pad_id
        self._slot = torch.full((1,), filled, device=mask.device)
        self._step = torch.zeros(1, dtype=torch.long, device=mask.device)
        self._cache = output.past_key_values
        self._cache.layers = [
            FixedLayer(layer.keys, layer.values, capacity, self._slot) for layer in self._cache.layers
        ]
        self._mask = mask.new_zeros(count, 1, 1, capacity)  # (B, heads, queries, capacity), as Hugging Face takes it
        self._mask[:, 0, 0, :filled] = mask
        self._logits, self._position, self._uniforms = output.logits[:, -1].clone(), next_position.clone(), uniforms
        self.rows = torch.arange(count, device=mask.device)
        self.sound = torch.ones((), dtype=torch.bool, device=mask.device)
        self.ended = torch.zeros(count, dtype=torch.bool, device=mask.device)
        self.lengths = torch.zeros(count, dtype=torch.long, device=mask.device)
        self.responses = torch.full((count, length), codec.pad_id, device=mask.device)
        self.logprobs = torch.zeros_like(uniforms)
        self._of_step = uniforms.new_zeros(count)

    def step(self) -> None:
        uniforms = self._uniforms.index_select(1, self._step).squeeze(1)
        drawn = draw(self._logits, uniforms, self._temperature, self.sound, self._of_step)
        drawn = torch.where(self.ended, self._pad_id, drawn)
        self.responses.index_copy_(1, self._step, drawn[:, None])
        self.logprobs.index_copy_(1, self._step, self._of_step.masked_fill(self.ended, 0.0)[:, None])
        self.lengths += ~self.ended
        self.ended |= self._codec.is_stop(drawn)
        self._mask.index_fill_(3, self._slot, True)
        output = self._policy(
            input_ids=drawn[:, None],
            attention_mask=self._mask,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._logits.copy_(output.logits[:, -1])
        for number in (self._position, self._slot, self._step):
            number += 1

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        for name in (
            *("_mask", "_logits", "_position", "_uniforms", "_of_step"),
            *("rows", "ended", "lengths", "responses", "logprobs"),
        ):
            setattr(self, name, getattr(self, name)[rows])


def decode_on_gpu(decoding: Decoding, logprobs: Tensor | None = None) -> list[list[int]]:
    """Sample a response to every prompt; `generation.generate` says more, also of `logprobs`."""
    count, left = decoding.responses.shape
    responses: list[list[int]] = [[] for _ in range(count)]
    with _no_order_to_keep():
        while left > 0:
            left -= _replay(decoding, left)
            done = decoding.ended if left > 0 else torch.ones_like(decoding.ended)
            rows, lengths, tokens = (part[done] for part in (decoding.rows, decoding.lengths, decoding.responses))
            for row, length, response in zip(rows.tolist(), lengths.tolist(), tokens.tolist(), strict=True):
                responses[row] = response[:length]
            if logprobs is not None:
                logprobs[rows.cpu()] = decoding.logprobs[done].cpu().to(logprobs.dtype)
            if bool(done.all()):
                break
            decoding.keep((~done).nonzero().squeeze(1))
    require_sound(decoding.sound)
    return responses


@functools.cache
def _recording_stream() -> torch.cuda.Stream:
    """The one stream to record on: every further one that multiplies matrices is given a workspace of its own."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _replay(decoding: Decoding, most: int) -> int:
    """Take up to `most` steps, fewer if enough rows end before.

    Returns:
        How many were taken.
    """
    stream = _recording_stream()
    steps = 0
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what the first step sets up must not be recorded
        decoding.step()
    torch.cuda.current_stream().wait_stream(stream)
    steps += 1
    if steps == most:
        return steps
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):  # records a step and takes none
        decoding.step()
    while steps < most:
        graph.replay()
        steps += 1
        if steps % _STEPS_BETWEEN_LOOKS == 0 and float(decoding.ended.float().mean()) >= _COMPACTION_SHARE:
            break
    return steps


@contextmanager
def _no_order_to_keep() -> Iterator[None]:
    """Every index of a step is written once, so the slower ways that keep an order are not needed."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
