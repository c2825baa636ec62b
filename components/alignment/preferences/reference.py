"""What the reference policy says of the responses: computed once a cycle, for the comparisons that it uses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.passes.forward import in_microbatches, response_logprobs
from components.passes.sequences import Packed, Sequences


def sequence_logprobs(policy: nn.Module, sequences: Sequences | Packed, temperature: float) -> Tensor:
    """Logprobs of whole responses. Shapes: (B,). Units: nats per response."""
    return response_logprobs(policy, sequences, temperature).sum(dim=1)


def reference_logprobs(
    accelerator: Accelerator,
    reference: nn.Module,
    pairs: Sequences,
    used: Iterable[list[int]],
    *,
    temperature: float,
    microbatch_size: int,
) -> Tensor:
    """The reference policy's logprobs of the responses of the comparisons used.

    Args:
        pairs: as `language_model.sequences.comparison_pairs` gives them, N chosen responses and N rejected ones.
        used: the comparisons of each iteration. One that comes again is not computed again; those of an iteration
            are computed together, so that the last bits do not depend on where cycles begin and end.
    Returns:
        Those of the chosen responses, then those of the rejected ones; 0 where a comparison is not used.

    Shapes: (2, N).
    Units: nats per response.
    """
    count = len(pairs) // 2
    logprobs = torch.zeros(2, count, device=accelerator.device)
    known: set[int] = set()
    for rows in used:
        new = [row for row in dict.fromkeys(rows) if row not in known]
        known.update(new)
        share = torch.tensor(new[accelerator.process_index :: accelerator.num_processes], dtype=torch.long)
        if len(share) == 0:
            continue
        with accelerator.autocast():  # as in the update
            (both,) = in_microbatches(
                lambda part: (sequence_logprobs(reference, part, temperature),),
                pairs.rows(torch.cat([share, share + count])).to(accelerator.device),
                2 * microbatch_size,
            )
        logprobs[:, share] = both.reshape(2, -1)
    # Every process has filled in its share, and every one needs them all: a later epoch shares them out anew.
    summed: Tensor = accelerator.reduce(logprobs, reduction="sum")
    return summed
