"""Batches of prompts with responses: prompts padded on the left, responses on the right, masks from lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from components.data.rows import Comparison
from components.models.text import Codec


class Packed(NamedTuple):
    """B sequences one behind the other in one row, without padding: S tokens, R of them in responses.

    Shapes: tokens and positions (1, S); lengths, B numbers (one more where there is filling) that sum to S; ends, their
    running sum from 0 on, in int32; before (R,) the index of the token before each response token, row by row;
    response_tokens (R,), and places (R,) where each stands in a (B, T) of responses, whose size is `shape`; last (B,)
    the index of each sequence's last token.
    """

    tokens: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    ends: Tensor
    before: Tensor
    response_tokens: Tensor
    places: Tensor
    shape: tuple[int, int]
    last: Tensor

    def in_place(self, column: Tensor) -> Tensor:
        """Numbers of response tokens, back in their rows, 0 elsewhere. Shapes: (R, ...) -> (B, T, ...)."""
        result = column.new_zeros(self.shape[0] * self.shape[1], *column.shape[1:])
        result[self.places] = column
        return result.view(*self.shape, *column.shape[1:])


class Sequences(NamedTuple):
    """B prompts with their responses.

    Shapes: prompt_tokens and prompt_mask (B, P), padded on the left; response_tokens and response_mask (B, T),
    padded on the right. A mask is True where a token counts.
    """

    prompt_tokens: Tensor
    prompt_mask: Tensor
    response_tokens: Tensor
    response_mask: Tensor

    @property
    def tokens(self) -> Tensor:
        return torch.cat([self.prompt_tokens, self.response_tokens], dim=1)

    @property
    def mask(self) -> Tensor:
        return torch.cat([self.prompt_mask, self.response_mask], dim=1)

    def __len__(self) -> int:  # the number of sequences, not of fields
        return self.prompt_tokens.shape[0]

    def rows(self, index: Tensor | slice) -> Sequences:
        """Some of the sequences, without the padding that only the others needed."""
        prompt_tokens, prompt_mask, response_tokens, response_mask = (field[index] for field in self)
        prompt_width = max(1, int(prompt_mask.sum(dim=1).max()))
        response_width = max(1, int(response_mask.sum(dim=1).max()))
        return Sequences(
            prompt_tokens[:, -prompt_width:],
            prompt_mask[:, -prompt_width:],
            response_tokens[:, :response_width],
            response_mask[:, :response_width],
        )

    def packed(self, multiple_of: int = 1) -> Packed:
        """The real tokens alone, but for a last sequence of filling, which nobody reads.

        Args:
            multiple_of: filled up to such a number of tokens, which makes equal shapes of many unequal ones; see
                `forward`.
        """
        mask, width = self.mask, self.prompt_mask.shape[1]
        lengths = mask.sum(dim=1)
        index = mask.flatten().cumsum(dim=0).view_as(mask) - 1
        before = index[:, width:][self.response_mask] - 1
        tokens = self.tokens[mask]
        positions = (mask.cumsum(dim=1) - 1)[mask]
        if filling := -len(tokens) % multiple_of:
            more = torch.arange(filling, device=mask.device)
            tokens = torch.cat([tokens, torch.zeros_like(more)])
            positions = torch.cat([positions, more])
            lengths = torch.cat([lengths, lengths.new_tensor([filling])])
        ends = pad(lengths.cumsum(dim=0), (1, 0))
        return Packed(
            tokens=tokens[None],
            positions=positions[None],
            lengths=tuple(lengths.tolist()),
            ends=ends.int(),
            before=before,
            response_tokens=self.response_tokens[self.response_mask],
            places=self.response_mask.flatten().nonzero().squeeze(1),
            shape=(len(self), self.response_mask.shape[1]),
            last=ends[1 : len(self) + 1] - 1,
        )

    def responses(self) -> list[list[int]]:
        """The tokens of each response, without padding."""
        lengths = self.response_mask.sum(dim=1).tolist()
        return [row[:length] for row, length in zip(self.response_tokens.tolist(), lengths, strict=True)]

    def to(self, device: torch.device) -> Sequences:
        return Sequences(*(field.to(device) for field in self))


def pad_left(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of shape (B, longest row), padded on the left."""
    width = max(1, max(len(row) for row in rows))
    tokens = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(width) >= (width - lengths)[:, None]


def pad_right(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of shape (B, longest row), padded on the right."""
    width = max(1, max(len(row) for row in rows))
    tokens = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(width) < lengths[:, None]


def build_sequences(prompts: list[list[int]], responses: list[list[int]], pad_id: int) -> Sequences:
    """Pad tokenised prompts and responses into one batch."""
    return Sequences(*pad_left(prompts, pad_id), *pad_right(responses, pad_id))


def comparison_pairs(rows: list[Comparison], codec: Codec) -> Sequences:
    """The comparisons' N chosen responses, then their N rejected ones, with their prompts."""
    prompts = codec.encode_prompts([row.asked for row in rows])
    responses = codec.encode_responses([row.chosen for row in rows] + [row.rejected for row in rows])
    return build_sequences(prompts + prompts, responses, codec.pad_id)


def by_length(sequences: Sequences) -> Tensor:
    """Row numbers, of the longest sequences first. Shapes: (B,)."""
    return torch.argsort(sequences.mask.sum(dim=1), stable=True, descending=True)


def microbatches(sequences: Sequences, size: int) -> Iterator[tuple[Tensor, Sequences]]:
    """Parts of at most `size` sequences, of like length together so that little is padded, with their row numbers."""
    for index in torch.split(by_length(sequences), size):
        yield index, sequences.rows(index)
