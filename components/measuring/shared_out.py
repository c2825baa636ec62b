"""The work of measuring, shared out over processes: each takes whole batches, those that one process would make.

Whole ones, for the last bits of a float depend on what is computed together: so records have the same bytes, however
many processes made them. Between the two passes, and after them, every process is told of what the others found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from components.engines.generation import generate
from components.models.text import Codec
from components.passes.forward import in_microbatches
from components.passes.sequences import Sequences, by_length, pad_left, pad_right


def generate_together(
    together: Accelerator | None,
    policy: Any,
    codec: Codec,
    prompts: list[list[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    batch_size: int,
) -> Sequences:
    """What `generate` gives, in every process.

    Args:
        together: of processes that all call this; None where one does all.
    """
    if together is None or together.num_processes == 1:
        return generate(policy, codec, prompts, uniforms, temperature=temperature, batch_size=batch_size)
    order = torch.tensor(sorted(range(len(prompts)), key=lambda row: len(prompts[row])))  # as `generate` does
    mine, answers = _own(together, order, batch_size), []
    if mine:
        asked = [prompts[row] for row in mine]
        sampled = generate(policy, codec, asked, uniforms[mine], temperature=temperature, batch_size=batch_size)
        answers = sampled.responses()
    responses: list[list[int]] = [[] for _ in prompts]
    for rows, of_rows in _told(policy, (mine, answers)):
        for row, response in zip(rows, of_rows, strict=True):
            responses[row] = response
    return Sequences(*pad_left(prompts, codec.pad_id), *pad_right(responses, codec.pad_id))


def in_microbatches_together(
    together: Accelerator | None,
    policy: Any,
    function: Callable[[Sequences], tuple[Tensor, ...]],
    sequences: Sequences,
    size: int,
) -> tuple[Tensor, ...]:
    """What `in_microbatches` gives of a function whose results are (B,), in every process.

    Args:
        together: as in `generate_together`.
        policy: what the function asks.
    """
    if together is None or together.num_processes == 1:
        return in_microbatches(function, sequences, size)
    mine = _own(together, by_length(sequences).cpu(), size)
    columns: tuple[Tensor, ...] = ()
    if mine:
        columns = in_microbatches(function, sequences.rows(torch.tensor(mine)), size)
    told = [part for part in _told(policy, (mine, [column.cpu() for column in columns])) if part[0]]
    places = torch.cat([torch.tensor(rows) for rows, _ in told]).argsort()
    device = sequences.prompt_tokens.device
    whole = (torch.cat(parts)[places] for parts in zip(*(found for _, found in told), strict=True))
    return tuple(column.to(device) for column in whole)


def _own(together: Accelerator, order: Tensor, size: int) -> list[int]:
    """The rows of every batch that this process takes; none where there are fewer batches than processes."""
    batches = torch.split(order, size)[together.process_index :: together.num_processes]
    return [row for batch in batches for row in batch.tolist()]


def _told(policy: Any, found: tuple[list[int], Any]) -> list[tuple[list[int], Any]]:
    """What each process found; of a policy in shards, once all have passed through it."""
    inner = getattr(policy, "policy", policy)  # a guided one has it inside
    if hasattr(inner, "let_others_end"):  # components.training.sharding
        inner.let_others_end()
    return gather_object([found])  # type: ignore[no-any-return]
