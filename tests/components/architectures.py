"""Tiny models with random weights of several architectures, stored as Hugging Face has them, and a six-word codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.models.loading import load_policy, new_scalar_model, save_scalar_model
from components.models.text import Codec, TextFormat
from components.passes import forward
from components.passes.sequences import Packed, Sequences, build_sequences

ARCHITECTURES = ("llama", "llama3", "gpt2", "qwen2", "qwen3", "mistral", "gemma3_text", "phi3")
VOCABULARY = 37
# Rotary frequencies stretched as in Llama 3.1, for texts of eight tokens.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
WORDS = ["<pad>", "<eos>", "a", "b", "c", "d"]


def random_causal_model(architecture: str, vocabulary: int, seed: int) -> Any:
    """A tiny model with weights so large that its distributions are far from even."""
    import transformers as hf

    plain = {
        "vocab_size": vocabulary,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    }
    configs: dict[str, Any] = {
        "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**plain, **sizes, attention_dropout=0.1)),
        "llama3": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(**plain, **sizes, attention_dropout=0.1, rope_parameters=LLAMA3_ROPE)
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**plain, n_embd=16, n_layer=2, n_head=2, n_positions=64)),
        "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**plain, **sizes)),
        "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**plain, **sizes, sliding_window=4)),
        "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**plain, **sizes, head_dim=8)),
        # A layer that sees the last tokens alone, and one that sees all.
        "gemma3_text": lambda: hf.Gemma3ForCausalLM(
            hf.Gemma3TextConfig(
                **plain, **sizes, head_dim=8, query_pre_attn_scalar=8, sliding_window=4, sliding_window_pattern=2
            )
        ),
        "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**plain, **sizes, sliding_window=4)),
    }
    torch.manual_seed(seed)
    model = configs[architecture]()
    with torch.no_grad():  # biases and norms start at 0 and 1, where a mistake would not show
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session", params=ARCHITECTURES)
def stored_policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a causal model, one architecture after the other."""
    folder = tmp_path_factory.mktemp(request.param) / "policy"
    random_causal_model(request.param, VOCABULARY, seed=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stored_scalar_model(stored_policy: Path) -> Path:
    """The folder of a scalar model on the same trunk, with a large head and a normalisation."""
    model = new_scalar_model(stored_policy, seed=4)
    with torch.no_grad():
        model.classifier.score.weight.mul_(5.0)
    model.classifier.config.score_mean, model.classifier.config.score_std = 0.3, 2.5
    save_scalar_model(model, stored_policy.with_name("scalar"))
    return stored_policy.with_name("scalar")


@pytest.fixture
def pairs() -> list[tuple[list[int], list[int]]]:
    """Four prompts with their responses, of unlike lengths, so that every batch pads."""
    return [([5, 6, 7], [20, 21]), ([8], [22, 23, 24, 2]), ([9, 10, 11, 12, 13], [2]), ([14, 15], [*range(25, 31)])]


@pytest.fixture
def sequences(pairs: list[tuple[list[int], list[int]]]) -> Sequences:
    """The same, padded into one batch."""
    prompts, responses = zip(*pairs, strict=True)
    return build_sequences([*prompts], [*responses], pad_id=0)


@pytest.fixture(scope="session")
def response_logits() -> Callable[[Any, Sequences | Packed], Tensor]:
    """All the logits behind response_logprobs, 0 where there is no response: response_logits(policy, sequences)."""

    def logits_of(policy: Any, sequences: Sequences | Packed) -> Tensor:
        sequences = forward.prepared(sequences, policy)
        return forward._in_place(forward._logits(policy, sequences), sequences)

    return logits_of


@pytest.fixture(scope="session")
def word_codec() -> Codec:
    """A codec whose tokens are six words, small enough to enumerate responses; it adds nothing to a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    return Codec(fast, TextFormat("{prompt}", max_prompt_tokens=4, max_response_tokens=3))


@pytest.fixture(scope="session")
def word_policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A policy over the six words, whose responses end early often and late sometimes."""
    folder = tmp_path_factory.mktemp("words") / "policy"
    random_causal_model("llama", len(WORDS), seed=5).save_pretrained(folder)
    return load_policy(folder)


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Any]:
    """Makes a tiny model: random_model(architecture, vocabulary, seed)."""
    return random_causal_model
