"""The cache with room, against Hugging Face's own that grows by concatenation."""

from __future__ import annotations

import torch
from transformers.cache_utils import DynamicCache

from components.engines.cache import RoomyLayer, make_room


def states(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 3, 2, tokens, 4, generator=numbers)
    return keys, values


def test_it_holds_what_a_growing_cache_holds_and_copies_no_old_token() -> None:
    ours, theirs = DynamicCache(), DynamicCache()
    for cache in (ours, theirs):
        for layer in range(2):
            cache.update(*states(5, seed=layer), layer)
    make_room(ours, 3)
    for step in range(3):
        if step == 2:
            ours.batch_select_indices(torch.tensor([2, 0]))
            theirs.batch_select_indices(torch.tensor([2, 0]))
        for layer in range(2):
            stored = ours.layers[layer].keys.data_ptr()
            new = [part[: 2 if step == 2 else 3] for part in states(1, seed=10 + step)]
            for kept, expected in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                assert torch.equal(kept, expected)
            assert ours.layers[layer].keys.data_ptr() == stored
        assert ours.get_seq_length() == theirs.get_seq_length() == 6 + step


def test_layers_of_other_kinds_stay() -> None:
    from transformers import MistralConfig

    cache = DynamicCache(config=MistralConfig(num_hidden_layers=1, sliding_window=4))
    cache.update(*states(5, seed=0), 0)
    before = cache.layers[0]
    make_room(cache, 3)
    assert cache.layers[0] is before and not isinstance(before, RoomyLayer)
