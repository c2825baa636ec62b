"""Padding, on the left or the right and in any amount, is never seen; nor is the rest of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.models.loading import load_policy, load_scalar_model
from components.passes.forward import (
    in_microbatches,
    response_logprobs_and_entropy,
    response_values,
    sequence_scores,
)
from components.passes.sequences import Sequences, build_sequences, microbatches

Pairs = list[tuple[list[int], list[int]]]


def wider(sequences: Sequences, left: int, right: int, pad_id: int) -> Sequences:
    """The same sequences with more padding, of another id."""

    def widen(tokens: Tensor, before: int, after: int, filling: int) -> Tensor:
        return torch.nn.functional.pad(tokens, (before, after), value=filling)

    return Sequences(
        widen(sequences.prompt_tokens, left, 0, pad_id),
        widen(sequences.prompt_mask, left, 0, False),
        widen(sequences.response_tokens, 0, right, pad_id),
        widen(sequences.response_mask, 0, right, False),
    )


@pytest.fixture
def numbers_of(stored_policy: Path, stored_scalar_model: Path) -> Any:
    """All that the models say of sequences, at real tokens: logprobs, entropy, values, scores."""
    policy, scalar = load_policy(stored_policy), load_scalar_model(stored_scalar_model)

    @torch.no_grad()
    def numbers(sequences: Sequences) -> tuple[Tensor, ...]:
        logprobs, entropy = response_logprobs_and_entropy(policy, sequences, 0.7)
        columns = (logprobs, entropy, response_values(scalar, sequences))
        return *(column[sequences.response_mask] for column in columns), sequence_scores(scalar, sequences)

    return numbers


@pytest.mark.parametrize(("left", "right", "pad_id"), [(3, 0, 0), (0, 5, 0), (4, 2, 2), (11, 9, 31)])
def test_padding_changes_no_number(numbers_of: Any, sequences: Sequences, left: int, right: int, pad_id: int) -> None:
    for plain, padded in zip(numbers_of(sequences), numbers_of(wider(sequences, left, right, pad_id)), strict=True):
        torch.testing.assert_close(padded, plain, rtol=0, atol=1e-5)


def test_the_order_and_company_of_the_rows_change_no_number(numbers_of: Any, sequences: Sequences) -> None:
    order = torch.tensor([2, 0, 3, 1])
    *_, scores = numbers_of(sequences)
    *_, permuted = numbers_of(sequences.rows(order))
    torch.testing.assert_close(permuted, scores[order], rtol=0, atol=1e-5)
    for row in range(len(sequences)):
        *_, alone = numbers_of(sequences.rows(torch.tensor([row])))
        torch.testing.assert_close(alone, scores[row : row + 1], rtol=0, atol=1e-5)


def test_rows_drop_the_padding_that_only_others_needed(sequences: Sequences) -> None:
    assert sequences.tokens.shape == (4, 5 + 6)
    part = sequences.rows(torch.tensor([1, 0]))
    assert part.prompt_tokens.tolist() == [[0, 0, 8], [5, 6, 7]]
    assert part.prompt_mask.tolist() == [[False, False, True], [True, True, True]]
    assert part.response_tokens.tolist() == [[22, 23, 24, 2], [20, 21, 0, 0]]
    assert part.response_mask.tolist() == [[True] * 4, [True, True, False, False]]


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_microbatches_hold_every_row_once_and_join_in_order(sequences: Sequences, pairs: Pairs, size: int) -> None:
    seen = torch.cat([index for index, _ in microbatches(sequences, size)])
    assert sorted(seen.tolist()) == [0, 1, 2, 3]
    assert all(len(part) <= size for _, part in microbatches(sequences, size))
    lengths, tokens = in_microbatches(lambda part: (part.mask.sum(dim=1), part.response_tokens), sequences, size)
    assert lengths.tolist() == [len(p) + len(r) for p, r in pairs]
    assert tokens.tolist() == sequences.response_tokens.tolist()


def test_an_end_token_that_is_the_pad_token_counts() -> None:
    sequences = build_sequences([[7], [7, 8]], [[9, 2], [2]], pad_id=2)
    assert sequences.response_mask.tolist() == [[True, True], [True, False]]
    assert sequences.prompt_mask.tolist() == [[False, True], [True, True]]
