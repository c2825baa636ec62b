"""Logprobs in chunks of the vocabulary are those of whole logits, for every architecture and every kind of policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from components.config import LanguageModel, Params
from components.engines.preflight import require_chunks
from components.errors import ConfigError
from components.models.best_of_n import BestOfNPolicy
from components.models.loading import load_policy, load_scalar_model
from components.passes.forward import response_logprobs, response_logprobs_and_entropy
from components.passes.sequences import Sequences

CHUNK = 10  # of 37 tokens


@pytest.fixture
def chunked(tiny_params: Callable[..., Params]) -> Callable[..., LanguageModel]:
    return lambda **changes: tiny_params(language_model={"vocabulary_chunk": CHUNK, **changes}).language_model


def sizes_of_answers(policy: Any) -> list[int]:
    """The last sizes of what the LM head gives, as they come."""
    sizes: list[int] = []
    policy.get_output_embeddings().register_forward_hook(lambda _, __, given: sizes.append(given.shape[-1]))
    return sizes


@pytest.mark.parametrize("attention", [None, "sdpa"])  # packed, and padded
def test_they_and_their_gradients_are_those_of_whole_logits(
    stored_policy: Path,
    sequences: Sequences,
    chunked: Callable[..., LanguageModel],
    attention: str | None,
) -> None:
    whole = load_policy(stored_policy)
    parts = load_policy(stored_policy, chunked(attn_implementation=attention), trained=True)
    sizes = sizes_of_answers(parts)
    gradients = []
    for policy in (whole, parts):
        logprobs, entropy = response_logprobs_and_entropy(policy, sequences, 0.7)
        (logprobs.sum() - 0.3 * entropy.square().sum()).backward()
        gradients.append({name: weight.grad for name, weight in policy.named_parameters()})
    assert sizes == [2]  # a logprob and an entropy of each token, and no logits
    with torch.no_grad():
        for mine, other in zip(
            response_logprobs_and_entropy(parts, sequences, 0.7),
            response_logprobs_and_entropy(whole, sequences, 0.7),
            strict=True,
        ):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            response_logprobs(parts, sequences, 0.7), response_logprobs(whole, sequences, 0.7), rtol=0, atol=1e-5
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-4)
    assert parts(input_ids=sequences.tokens).logits.shape[-1] == 37  # whole again for whoever asks for logits


def test_under_autocast_they_are_rounded_where_whole_logits_are(
    stored_policy: Path, sequences: Sequences, chunked: Callable[..., LanguageModel]
) -> None:
    whole, parts = load_policy(stored_policy), load_policy(stored_policy, chunked())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for mine, other in zip(
            response_logprobs_and_entropy(parts, sequences, 0.7),
            response_logprobs_and_entropy(whole, sequences, 0.7),
            strict=True,
        ):
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_wrapped_policy_and_one_that_chooses_take_chunks_too(
    stored_policy: Path, stored_scalar_model: Path, sequences: Sequences, chunked: Callable[..., LanguageModel]
) -> None:
    class Wrapped(nn.Module):  # as DistributedDataParallel does
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module = module

        def forward(self, **inputs: Any) -> Any:
            return self.module(**inputs)

    plain, parts = load_policy(stored_policy), load_policy(stored_policy, chunked())
    expected = response_logprobs(plain, sequences, 0.7)
    choosing = BestOfNPolicy(parts, load_scalar_model(stored_scalar_model), 2)
    for policy in (Wrapped(parts), choosing):
        sizes: list[int] = []
        hook = parts.get_output_embeddings().register_forward_hook(
            lambda _, __, given, sizes=sizes: sizes.append(given.shape[-1])
        )
        torch.testing.assert_close(response_logprobs(policy, sequences, 0.7), expected, rtol=0, atol=1e-5)
        hook.remove()
        assert sizes == [1]


def test_a_model_that_changes_its_heads_logits_is_refused(chunked: Callable[..., LanguageModel]) -> None:
    """Gemma 2 bends them by a tanh, Granite divides them; Llama, and Phi's head with a bias, leave them alone."""
    sizes = {"vocab_size": 37, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    few = sizes | {"num_key_value_heads": 1}
    gemma = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**few, head_dim=8))
    granite = transformers.GraniteForCausalLM(transformers.GraniteConfig(**few, logits_scaling=8.0))
    for policy in (gemma, granite):
        with pytest.raises(ConfigError) as caught:
            require_chunks(policy.eval(), chunked())
        assert caught.value.where == "language_model.vocabulary_chunk"
        assert type(policy).__name__ in caught.value.found
        require_chunks(policy, chunked(vocabulary_chunk=None))
    for policy in (
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**few)),
        transformers.PhiForCausalLM(transformers.PhiConfig(**sizes)),
    ):
        require_chunks(policy.eval(), chunked())


def test_a_head_of_another_kind_is_refused(
    word_policy: Any, chunked: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter on the LM head has weights that its `weight` does not tell of."""

    class Adapted(nn.Linear):
        pass

    monkeypatch.setattr(word_policy, "get_output_embeddings", lambda: Adapted(16, 6))
    with pytest.raises(ConfigError, match="Adapted"):
        require_chunks(word_policy, chunked())


def test_q_learning_is_refused_as_it_looks_at_the_whole_vocabulary(tiny_params: Callable[..., Params]) -> None:
    with pytest.raises(ConfigError, match="language_model.vocabulary_chunk") as caught:
        tiny_params(method="q_learning", language_model={"vocabulary_chunk": 64})
    assert "q_learning" in str(caught.value)
