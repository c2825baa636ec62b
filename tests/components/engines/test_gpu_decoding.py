"""Decoding by CUDA graphs gives what the plain loop gives: its steps also without a GPU, the graphs with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.engines import generation, gpu_decoding
from components.engines.generation import generate
from components.engines.gpu_decoding import can_decode_on_gpu
from components.engines.sampling import draw_uniforms
from components.models.loading import load_policy
from components.models.text import Codec

PROMPTS = [[2, 3, 4], [3], [5, 5, 2, 3], [4, 2], [2], [3, 4, 5, 2], [5, 4], [4, 4, 3]] * 3
LONGEST = 21  # more than two looks at which rows have ended
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def sample(policy: Any, codec: Codec, numbers: Tensor, logprobs: Tensor | None = None) -> list[list[int]]:
    how: dict[str, Any] = {"temperature": 0.8, "batch_size": 10, "logprobs": logprobs}
    return generate(policy, codec, PROMPTS, numbers, **how).responses()


def numbers() -> Tensor:
    return draw_uniforms(len(PROMPTS), LONGEST, torch.Generator().manual_seed(11))


def eager_replay(decoding: Any, most: int) -> int:
    """The steps of `_replay`, one after the other in Python."""
    for step in range(1, most + 1):
        decoding.step()
        if step % 3 == 0 and bool(decoding.ended.any()):
            return step
    return most


def test_the_steps_alone_give_what_the_plain_loop_gives(
    word_policy: Any, word_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, stepwise = torch.zeros(2, *numbers().shape)
    expected = sample(word_policy, word_codec, numbers(), plain)
    assert len({len(row) for row in expected}) > 5  # rows are taken out at different times
    monkeypatch.setattr(generation, "can_decode_on_gpu", lambda cache, device: True)
    monkeypatch.setattr(gpu_decoding, "_replay", eager_replay)
    torch.use_deterministic_algorithms(True)
    assert sample(word_policy, word_codec, numbers(), stepwise) == expected
    torch.testing.assert_close(stepwise, plain, rtol=0, atol=1e-5)
    assert [int((row != 0).sum()) for row in stepwise] == [len(row) for row in expected]
    assert torch.are_deterministic_algorithms_enabled()


@needs_gpu
def test_graphs_give_what_the_plain_loop_gives(
    stored_policy: Path, word_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(stored_policy).cuda()
    torch.use_deterministic_algorithms(True)
    recorded = torch.zeros(numbers().shape)
    graphed = sample(policy, word_codec, numbers(), recorded)
    assert sample(policy, word_codec, numbers()) == graphed
    assert [int((row < 0).sum()) for row in recorded] == [len(row) for row in graphed]
    monkeypatch.setattr(generation, "can_decode_on_gpu", lambda cache, device: False)
    plain = sample(policy, word_codec, numbers())
    same = sum(ours == expected for ours, expected in zip(graphed, plain, strict=True))
    assert same >= len(plain) - 1  # a number may lie between two roundings of one distribution


@needs_gpu
def test_graphs_follow_the_weights(stored_policy: Path, word_codec: Codec) -> None:
    policy = load_policy(stored_policy).cuda()
    before = sample(policy, word_codec, numbers())
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).cuda())
    assert sample(policy, word_codec, numbers()) != before


@needs_gpu
def test_only_plain_caches_are_taken_over(random_model: Any) -> None:
    taken = {}
    for name in ("llama", "mistral"):
        model = random_model(name, 37, seed=3).cuda()
        output = model(input_ids=torch.ones(1, 3, dtype=torch.long, device="cuda"), use_cache=True)
        taken[name] = can_decode_on_gpu(output.past_key_values, torch.device("cuda"))
    assert taken == {"llama": True, "mistral": False}  # mistral's has a window
