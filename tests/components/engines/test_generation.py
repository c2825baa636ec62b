"""Responses against an oracle made with plain Hugging Face: one full forward a token, inverting the distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from components.engines import generation
from components.engines.generation import generate
from components.engines.sampling import draw, draw_uniforms
from components.models.loading import load_policy
from components.models.text import Codec
from components.passes.forward import response_logprobs
from components.passes.sequences import Sequences

LONGEST = 12
PAD, EOS, A, B, C, D = range(6)  # the six words
PROMPTS = [[A, B, C], [B], [D, D, A, B], [C, A], [A], [B, C, D, A], [D, C], [C, C, B]] * 3


def numbers_of(count: int, length: int, seed: int = 11) -> Tensor:
    return draw_uniforms(count, length, torch.Generator().manual_seed(seed))


def sample(policy: Any, codec: Codec, prompts: list[list[int]], numbers: Tensor, **changes: Any) -> list[list[int]]:
    sequences = generate(policy, codec, prompts, numbers, **{"temperature": 0.8, "batch_size": 5} | changes)
    return rows_of(sequences)


def rows_of(sequences: Sequences) -> list[list[int]]:
    lengths = sequences.response_mask.sum(dim=1).tolist()
    return [row[:length] for row, length in zip(sequences.response_tokens.tolist(), lengths, strict=True)]


@torch.no_grad()
def oracle(plain: Any, prompt: list[int], numbers: list[float], temperature: float) -> tuple[list[int], list[float]]:
    """The response and its logprobs, one full forward of the unpadded sequence a token, in plain Python."""
    response: list[int] = []
    logprobs: list[float] = []
    for number in numbers:
        logits = plain(torch.tensor([prompt + response])).logits[0, -1].double() / temperature
        weights = logits.exp().tolist()
        below = 0.0
        token = -1
        while below <= number * sum(weights):
            token += 1
            below += weights[token]
        response.append(token)
        logprobs.append(float(torch.log(torch.tensor(weights[token] / sum(weights)))))
        if token == EOS:
            break
    return response, logprobs


@pytest.mark.parametrize("temperature", [0.8, 1.0, 1.7])
def test_responses_equal_the_oracles(word_policy: Any, word_codec: Codec, temperature: float) -> None:
    numbers = numbers_of(len(PROMPTS), LONGEST)
    drawn_with = torch.ones(numbers.shape)
    sampled = sample(word_policy, word_codec, PROMPTS, numbers, temperature=temperature, logprobs=drawn_with)
    expected, logprobs = zip(
        *(oracle(word_policy, prompt, row, temperature) for prompt, row in zip(PROMPTS, numbers.tolist(), strict=True)),
        strict=True,
    )
    assert sampled == list(expected)
    padded = [row + [0.0] * (LONGEST - len(row)) for row in logprobs]
    torch.testing.assert_close(drawn_with, torch.tensor(padded), rtol=0, atol=1e-5)
    assert {EOS, A} <= {token for row in sampled for token in row}  # or the comparison above says little
    assert len({len(row) for row in sampled}) > 3


def test_every_architecture_samples_with_its_cache_what_it_samples_without(
    stored_policy: Path, word_codec: Codec
) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(stored_policy).eval()
    prompts, numbers = PROMPTS[:6], numbers_of(6, LONGEST)
    expected = [oracle(plain, prompt, row, 1.3)[0] for prompt, row in zip(prompts, numbers.tolist(), strict=True)]
    assert sample(load_policy(stored_policy), word_codec, prompts, numbers, temperature=1.3) == expected


def test_responses_do_not_depend_on_the_batch_around_them(
    word_policy: Any, word_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = numbers_of(len(PROMPTS), LONGEST)
    expected = sample(word_policy, word_codec, PROMPTS, numbers)
    for batch_size in (1, 3, len(PROMPTS), 100):
        assert sample(word_policy, word_codec, PROMPTS, numbers, batch_size=batch_size) == expected
    order = torch.randperm(len(PROMPTS), generator=torch.Generator().manual_seed(1)).tolist()
    permuted = sample(word_policy, word_codec, [PROMPTS[row] for row in order], numbers[order])
    assert permuted == [expected[row] for row in order]
    for share in (0.0, 0.01, 0.6, 2.0):  # rows that ended leave at once, ..., never
        monkeypatch.setattr(generation, "_COMPACTION_SHARE", share)
        assert sample(word_policy, word_codec, PROMPTS, numbers, batch_size=len(PROMPTS)) == expected


def test_an_end_token_is_last_and_only_a_full_response_has_none(word_policy: Any, word_codec: Codec) -> None:
    sampled = sample(word_policy, word_codec, PROMPTS, numbers_of(len(PROMPTS), 4))
    ended = [row for row in sampled if row[-1] == EOS]
    cut = [row for row in sampled if row[-1] != EOS]
    assert ended and cut  # both kinds are there
    assert all(EOS not in row[:-1] for row in sampled)
    assert all(len(row) == 4 for row in cut)


def test_the_prompts_come_back_as_they_were(word_policy: Any, word_codec: Codec) -> None:
    sequences = generate(word_policy, word_codec, PROMPTS[:3], numbers_of(3, 2), temperature=1.0, batch_size=2)
    assert [row[mask].tolist() for row, mask in zip(sequences.prompt_tokens, sequences.prompt_mask, strict=True)] == (
        PROMPTS[:3]
    )


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
def test_logprobs_are_those_of_the_distribution_that_was_sampled_from(
    word_policy: Any, word_codec: Codec, temperature: float
) -> None:
    numbers = numbers_of(len(PROMPTS), LONGEST)
    sequences = generate(word_policy, word_codec, PROMPTS, numbers, temperature=temperature, batch_size=7)
    with torch.no_grad():
        logprobs = response_logprobs(word_policy, sequences, temperature)
    for row, (prompt, uniform_row) in enumerate(zip(PROMPTS, numbers.tolist(), strict=True)):
        response, expected = oracle(word_policy, prompt, uniform_row, temperature)
        assert logprobs[row, : len(response)].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_responses_are_as_frequent_as_they_are_probable(
    word_policy: Any, word_codec: Codec, temperature: float
) -> None:
    """Chi-square over all 31 responses of at most two tokens, their probabilities by enumeration."""
    prompt, count = [A, B], 6000

    @torch.no_grad()
    def probabilities(before: list[int]) -> list[float]:
        logits = word_policy(torch.tensor([before])).logits[0, -1].double()
        return torch.softmax(logits / temperature, dim=0).tolist()

    first = probabilities(prompt)
    expected = {(EOS,): first[EOS]}
    for token in (PAD, A, B, C, D):
        expected |= {(token, second): first[token] * p for second, p in enumerate(probabilities([*prompt, token]))}
    assert sum(expected.values()) == pytest.approx(1.0)
    sampled = sample(
        word_policy, word_codec, [prompt] * count, numbers_of(count, 2), temperature=temperature, batch_size=count
    )
    observed = dict.fromkeys(expected, 0)
    for row in sampled:
        observed[tuple(row)] += 1
    often = [response for response, p in expected.items() if p * count >= 5.0]
    rare = [response for response in expected if response not in often]
    counts, means = [observed[r] for r in often], [expected[r] * count for r in often]
    if rare:  # together one more cell
        counts.append(sum(observed[r] for r in rare))
        means.append(sum(expected[r] for r in rare) * count)
    assert len(often) > 12
    assert chisquare(counts, means).pvalue > 0.01


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(4, 5)
    numbers = torch.tensor([0.0, 0.4999, 0.5, 1.0 - 2**-53], dtype=torch.float64)
    sound = torch.tensor(True)
    assert draw(logits, numbers, 1.0, sound).tolist() == [1, 1, 3, 3] and bool(sound)


def test_uniforms_are_of_the_generator_alone() -> None:
    first, again = numbers_of(3, 4), numbers_of(3, 4)
    assert first.dtype == torch.float64 and first.shape == (3, 4)
    assert torch.equal(first, again) and not torch.equal(first, numbers_of(3, 4, seed=12))
    assert bool(((first >= 0) & (first < 1)).all())
