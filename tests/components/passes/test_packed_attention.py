"""Packed sequences give what padded batches give, gradients included; tests of both against Hugging Face lie beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.models.loading import load_policy, load_scalar_model
from components.passes import forward
from components.passes.attention import takes_packed_sequences
from components.passes.forward import (
    response_logprobs,
    response_logprobs_and_entropy,
    response_values,
    sequence_scores,
)
from components.passes.sequences import Packed, Sequences, build_sequences


@pytest.fixture
def models(stored_policy: Path, stored_scalar_model: Path) -> list[Any]:
    return [load_policy(stored_policy), load_scalar_model(stored_scalar_model)]


@pytest.fixture
def numbers(response_logits: Callable[..., Tensor]) -> Callable[[list[Any], Sequences | Packed], list[Tensor]]:
    """All that a policy and a scalar model say of sequences: numbers(models, sequences)."""

    def numbers_of(models: list[Any], sequences: Sequences | Packed) -> list[Tensor]:
        policy, scalar = models
        return [
            response_logits(policy, sequences),
            response_logprobs(policy, sequences, 0.7),
            *response_logprobs_and_entropy(policy, sequences, 0.7),
            response_values(scalar, sequences),
            sequence_scores(scalar, sequences),
        ]

    return numbers_of


def gradients(models: list[Any], columns: list[Tensor]) -> list[Tensor]:
    for number, column in enumerate(columns, start=1):
        (number * column.square()).sum().backward(retain_graph=True)
    found = [weight.grad for model in models for weight in model.parameters() if weight.grad is not None]
    for model in models:
        model.zero_grad()
    return found


def test_packed_and_padded_agree_in_numbers_and_gradients(
    models: list[Any], numbers: Any, sequences: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(takes_packed_sequences(model) for model in models)
    packed = numbers(models, sequences)
    packed_gradients = gradients(models, packed)
    monkeypatch.setattr(forward, "takes_packed_sequences", lambda model: False)
    padded = numbers(models, sequences)
    for ours, expected in zip(packed, padded, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
    for ours, expected in zip(packed_gradients, gradients(models, padded), strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(ours / scale, expected / scale, rtol=0, atol=1e-4)


def test_filling_changes_neither_numbers_nor_gradients(models: list[Any], numbers: Any, sequences: Sequences) -> None:
    plain, filled = sequences.packed(), sequences.packed(multiple_of=7)
    assert (plain.tokens.shape[1], filled.tokens.shape[1]) == (24, 28)
    found, expected = numbers(models, filled), numbers(models, plain)
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=2e-5)
    for ours, other in zip(gradients(models, found), gradients(models, expected), strict=True):
        torch.testing.assert_close(ours / other.abs().max(), other / other.abs().max(), rtol=0, atol=1e-4)


def test_only_half_precision_on_the_cpu_fills_up(models: list[Any], sequences: Sequences) -> None:
    plain = forward.prepared(sequences, *models)
    with torch.autocast("cpu", torch.bfloat16):
        filled = forward.prepared(sequences, *models)
    assert isinstance(plain, Packed) and isinstance(filled, Packed)
    assert (plain.tokens.shape[1], filled.tokens.shape[1]) == (24, 64)


def test_a_module_of_ones_own_with_hugging_faces_call_gets_padded_batches(
    models: list[Any], sequences: Sequences
) -> None:
    class Wrapper(nn.Module):
        def __init__(self, policy: nn.Module) -> None:
            super().__init__()
            self.policy = policy

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool, logits_to_keep: int
        ) -> Any:
            assert input_ids.shape == attention_mask.shape == position_ids.shape == sequences.tokens.shape
            return self.policy(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
            )

    expected = response_logprobs(models[0], sequences, 0.7)
    torch.testing.assert_close(response_logprobs(Wrapper(models[0]), sequences, 0.7), expected, rtol=0, atol=2e-5)


def test_an_architecture_that_is_not_known_gets_padded_batches(
    random_model: Callable[..., Any], response_logits: Callable[..., Tensor], tmp_path: Path
) -> None:
    import transformers as hf

    config = hf.GPTNeoXConfig(
        vocab_size=37,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(1)
    plain = hf.GPTNeoXForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert not takes_packed_sequences(policy)
    logits = response_logits(policy, build_sequences([[5, 6, 7], [8]], [[20], [22, 23]], pad_id=0))
    for row, (prompt, response) in enumerate([([5, 6, 7], [20]), ([8], [22, 23])]):
        alone = plain(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[row, : len(response)], alone, rtol=0, atol=2e-5)


def test_packed_tokens_lie_one_behind_the_other() -> None:
    packed = build_sequences([[5, 6, 7], [8]], [[20], [22, 23]], pad_id=0).packed()
    assert packed.tokens.tolist() == [[5, 6, 7, 20, 8, 22, 23]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert packed.lengths == (4, 3)
    assert packed.before.tolist() == [2, 4, 5]  # 7 before 20, 8 before 22, 22 before 23
    assert packed.last.tolist() == [3, 6]


def test_in_half_precision_attention_is_computed_in_float32(models: list[Any], sequences: Sequences) -> None:
    """The attention's inputs are rounded to bfloat16, but not its products: as in a model of float32 in between."""
    seen: list[torch.dtype] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def spy(query: Tensor, *rest: Any, **options: Any) -> Tensor:
        seen.append(query.dtype)
        return original(query, *rest, **options)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr("components.passes.attention.scaled_dot_product_attention", spy)
        response_logprobs(models[0], sequences, 0.7)
    assert seen and set(seen) == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_on_a_gpu_packed_sequences_give_what_the_cpu_gives(
    models: list[Any], numbers: Any, sequences: Sequences, precision: torch.dtype
) -> None:
    expected = numbers(models, sequences)
    expected_gradients = gradients(models, expected)
    torch.use_deterministic_algorithms(True)
    moved = [model.cuda() for model in models]
    with torch.autocast("cuda", dtype=precision, enabled=precision != torch.float32):
        found = numbers(moved, sequences.to(torch.device("cuda")))
    tolerance = 1e-4 if precision == torch.float32 else 0.1
    for ours, column in zip(found, expected, strict=True):
        found_here = ours.cpu().float()
        torch.testing.assert_close(found_here, column, rtol=tolerance, atol=tolerance)  # reason: 8 bits in bfloat16
    for ours, gradient in zip(gradients(moved, found), expected_gradients, strict=True):
        error = (ours.cpu() - gradient).norm() / gradient.norm()
        assert error < (1e-4 if precision == torch.float32 else 0.05)
