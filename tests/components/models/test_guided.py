"""Guided policies against the formula with plain Hugging Face forwards; stored, damaged, and switched off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.digests import digest
from components.engines.answering import Answerer
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import ArtifactError
from components.models.guided import GuidedPolicy, new_heads
from components.models.loading import load_policy, save_policy
from components.models.text import Codec
from components.passes.forward import response_logprobs
from components.passes.sequences import Sequences

Pairs = list[tuple[list[int], list[int]]]
BETA = 1.5
EOS = 1  # of the six words


def guided(policy: Any, beta: float = BETA) -> GuidedPolicy:
    """A policy with heads so large that they change what it says."""
    value_head, target_q_heads = new_heads(policy, seed=8)
    noise = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in (*value_head.parameters(), *target_q_heads.parameters()):
            weight.add_(0.4 * torch.randn(weight.shape, generator=noise))
    return GuidedPolicy(policy, value_head, target_q_heads, beta)


def layers(head: nn.Module, hidden: Tensor) -> Tensor:
    """The head written out: two affine maps with the positive part between them."""
    weights = dict(head.named_parameters())
    inner = (hidden @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    return inner @ weights["2.weight"].T + weights["2.bias"]


def by_the_formula(model: GuidedPolicy, tokens: list[int]) -> Tensor:
    """log pi + beta (min Q' - V) at every position of one unpadded sequence."""
    plain = model.policy
    hidden = plain.base_model(torch.tensor([tokens])).last_hidden_state[0]
    logprobs = plain(torch.tensor([tokens])).logits[0].log_softmax(dim=-1)
    one, other = (layers(head, hidden) for head in model.target_q_heads)
    return logprobs + model.decode_beta * (torch.minimum(one, other) - layers(model.value_head, hidden))


@torch.no_grad()
def test_logits_are_guided_as_the_formula_says(
    stored_policy: Path, sequences: Sequences, pairs: Pairs, response_logits: Callable[..., Tensor]
) -> None:
    """For every architecture, and padding on both sides changes nothing."""
    model = guided(load_policy(stored_policy))
    logits = response_logits(model, sequences)
    plain = response_logits(model.policy, sequences).log_softmax(dim=-1)
    for row, (prompt, response) in enumerate(pairs):
        expected = by_the_formula(model, prompt + response)[len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[row, : len(response)], expected, rtol=0, atol=1e-4)
        assert float((expected - plain[row, : len(response)]).abs().max()) > 0.5


@torch.no_grad()
def test_responses_are_sampled_from_the_guided_distribution(word_policy: Any, word_codec: Codec) -> None:
    """With the cache, prompts of unlike lengths and rows that end early, as without: one full forward a token."""
    model = guided(word_policy)
    with torch.no_grad():  # these heads would hardly ever end a response
        for head in model.target_q_heads:
            head[2].bias[EOS] += 3.0
    prompts = [[2, 3, 4], [3], [5, 5, 2, 3], [4, 2], [2]]
    numbers = draw_uniforms(5, 9, torch.Generator().manual_seed(3))
    sampled = generate(model, word_codec, prompts, numbers, temperature=0.8, batch_size=4)
    lengths = sampled.response_mask.sum(dim=1).tolist()
    for prompt, row, length, drawn in zip(prompts, numbers, lengths, sampled.response_tokens.tolist(), strict=True):
        response: list[int] = []
        while len(response) < 9 and EOS not in response:
            shares = (by_the_formula(model, prompt + response)[-1].double() / 0.8).softmax(dim=-1).cumsum(dim=-1)
            response.append(int((shares <= row[len(response)]).sum()))
        assert drawn[:length] == response
    assert len(set(lengths)) > 2


def test_beta_zero_is_the_policy_itself(word_policy: Any, word_codec: Codec, sequences: Sequences) -> None:
    model = guided(word_policy, beta=0.0)
    prompt_tokens, prompt_mask, response_tokens, response_mask = sequences
    sequences = Sequences(prompt_tokens % 6, prompt_mask, response_tokens % 6, response_mask)
    with torch.no_grad():
        found, expected = (response_logprobs(each, sequences, 0.7) for each in (model, word_policy))
    # Two routes to one float32 number, a log softmax apart: up to 16 last bits of it, of 3e-7 at a logprob of 2.5.
    rounding = 16 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)  # reason: 1.9e-6, as said above
    prompts, numbers = [[2, 3, 4], [3], [5, 5, 2, 3]] * 10, draw_uniforms(30, 9, torch.Generator().manual_seed(3))
    settings = {"temperature": 1.0, "batch_size": 8}
    responses = [
        generate(each, word_codec, prompts, numbers, **settings) for each in (model, word_policy, guided(word_policy))
    ]
    assert torch.equal(responses[0].response_tokens, responses[1].response_tokens)
    assert not torch.equal(responses[2].response_tokens, responses[1].response_tokens)


def test_new_heads_have_nothing_to_say_and_differ(word_policy: Any, sequences: Sequences) -> None:
    before = torch.random.get_rng_state()
    (value_head, q_heads), (_, again), (_, other) = (new_heads(word_policy, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # the global stream is left alone
    hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    assert [tuple(each.shape) for each in q_heads(hidden)] == [(3, 6), (3, 6)] and value_head(hidden).shape == (3, 1)
    assert not any(each.any() for each in (*q_heads(hidden), value_head(hidden)))
    first, second, same, different = (
        heads[row][0].weight for heads, row in ((q_heads, 0), (q_heads, 1), (again, 0), (other, 0))
    )
    assert first.shape == (32, 16) and torch.equal(first, same)
    assert not torch.equal(first, second) and not torch.equal(first, different)


@torch.no_grad()
def test_the_heads_see_no_more_positions_than_are_asked_for(word_policy: Any) -> None:
    """Every one of them would give a row as long as the vocabulary."""
    model = guided(word_policy)
    seen: list[tuple[int, ...]] = []
    model.target_q_heads.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape)))
    tokens = torch.tensor([[2, 3, 4, 5, 2]])
    call = {"attention_mask": torch.ones_like(tokens), "position_ids": torch.arange(5)[None]}
    shapes = [tuple(model(tokens, **call, logits_to_keep=kept).logits.shape) for kept in (1, 3, 0)]
    assert seen == [(1, 1, 16), (1, 3, 16), (1, 5, 16)]
    assert shapes == [(1, 1, 6), (1, 3, 6), (1, 5, 6)]
    assert not word_policy.get_output_embeddings()._forward_pre_hooks  # nothing is left behind


@pytest.fixture
def folder(word_policy: Any, word_codec: Codec, tmp_path: Path) -> Path:
    """A stored guided policy."""
    save_policy(guided(word_policy), word_codec, tmp_path / "policy")
    return tmp_path / "policy"


def test_a_stored_guided_policy_comes_back_and_is_stored_alike(
    folder: Path, word_policy: Any, word_codec: Codec, tmp_path: Path
) -> None:
    loaded = load_policy(folder)
    expected = guided(word_policy).state_dict()
    assert isinstance(loaded, GuidedPolicy) and loaded.decode_beta == BETA and not loaded.training
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())
    save_policy(loaded, word_codec, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "q_heads.safetensors", "guided.json", "tokenizer.json"} <= names


def test_people_are_answered_by_the_guided_policy(folder: Path, word_policy: Any, word_codec: Codec) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "max_response_tokens": 8, "seed": 3}
    prompts = ["a b", "c", "d d a"] * 4
    answers = Answerer(folder).answer(prompts, **settings)
    (folder / "guided.json").write_text(json.dumps({"decode_beta": 0.0}))
    unguided = Answerer(folder).answer(prompts, **settings)
    save_policy(word_policy, word_codec, folder.with_name("plain"))
    assert Answerer(folder.with_name("plain")).answer(prompts, **settings) == unguided != answers


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop("value_head.0.bias")
    save_file(tensors, file)


def of_another_shape(file: Path) -> None:
    save_file(load_file(file) | {"value_head.0.bias": torch.zeros(7)}, file)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("q_heads.safetensors", cut_short),
        ("q_heads.safetensors", without_a_tensor),
        ("q_heads.safetensors", of_another_shape),
        ("q_heads.safetensors", Path.unlink),
        ("guided.json", Path.unlink),
        ("guided.json", cut_short),
        ("guided.json", lambda file: file.write_text("{}")),
        ("guided.json", lambda file: file.write_text("[]")),
        ("guided.json", lambda file: file.write_text('{"decode_beta": null}')),
        ("model.safetensors", cut_short),
    ],
)
def test_a_damaged_guided_policy_is_an_error_that_names_it(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    with pytest.raises(ArtifactError) as caught:
        load_policy(folder)
    assert str(folder) in caught.value.where
