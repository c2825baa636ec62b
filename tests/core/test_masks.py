from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.core.masks import last_true_index, response_mask, without_truncated

EOS = 2
PAD = 0


def test_the_first_eos_counts_and_nothing_after_it():
    tokens = torch.tensor([[5, EOS, PAD, PAD], [5, EOS, 7, EOS], [EOS, EOS, EOS, 5]])
    expected = [[True, True, False, False], [True, True, False, False], [True, False, False, False]]
    assert response_mask(tokens, EOS).tolist() == expected


def test_a_response_without_eos_counts_whole():
    assert response_mask(torch.tensor([[5, 6, 7]]), EOS).tolist() == [[True, True, True]]


def test_padding_that_equals_eos_does_not_lose_the_eos():
    assert response_mask(torch.tensor([[5, 6, EOS, EOS, EOS]]), EOS).sum() == 3


@given(rows=st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5))
def test_the_mask_is_as_long_as_the_response(rows):
    lengths = [row.index(EOS) + 1 if EOS in row else len(row) for row in rows]
    mask = response_mask(torch.tensor(rows), EOS)
    assert mask.tolist() == [[t < length for t in range(6)] for length in lengths]
    assert last_true_index(mask).tolist() == [length - 1 for length in lengths]


def test_the_last_true_is_found_behind_a_gap():
    mask = torch.tensor([[True, True, False], [True, False, True], [False, True, False], [True, False, False]])
    assert last_true_index(mask).tolist() == [1, 2, 1, 0]
    assert last_true_index(mask).dtype == torch.long


def test_a_row_without_a_true_is_named():
    with pytest.raises(ValueError, match=r"a True in every row, found none in row\(s\) \[1\]"):
        last_true_index(torch.tensor([[True, False], [False, False]]))


@pytest.mark.parametrize("tokens", [torch.tensor([1, 2]), torch.ones(2, 2), torch.ones(2, 2).bool()])
def test_tokens_are_integers_in_rows(tokens):
    with pytest.raises(ValueError, match="tokens"):
        response_mask(tokens, EOS)


@pytest.mark.parametrize("mask", [torch.ones(3).bool(), torch.ones(2, 2)])
def test_a_mask_is_bool_in_rows(mask):
    with pytest.raises(ValueError, match="mask"):
        last_true_index(mask)


def test_a_truncated_response_has_no_token_that_counts():
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])
    ended = torch.tensor([True, False, True])
    expected = [[True, True, False], [False, False, False], [True, False, True]]
    assert without_truncated(mask, ended).tolist() == expected


@pytest.mark.parametrize("ended", [torch.ones(2).bool(), torch.ones(3, 1).bool(), torch.ones(3)])
def test_ended_is_bool_and_one_a_row(ended):
    with pytest.raises(ValueError, match="ended: expected"):
        without_truncated(torch.ones(3, 2).bool(), ended)
