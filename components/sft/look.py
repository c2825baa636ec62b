"""A look at the policy that SFT has made: a broken one is told of before anything is trained on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from components.core.stats import masked_mean
from components.data.rows import Asked
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.measuring.health import Signs
from components.models.text import Codec
from components.passes.forward import in_microbatches, response_logprobs_and_entropy
from components.seeding import generator

_PROMPTS = 64  # enough for shares by tenths, and soon done


@torch.no_grad()
def look(policy: Any, codec: Codec, prompts: Sequence[Asked], batch_size: int, seed: int) -> Signs:
    """Sample a response at temperature 1 to each of the first prompts."""
    asked = prompts[:_PROMPTS]
    sequences = generate(
        policy,
        codec,
        codec.encode_prompts(asked),
        draw_uniforms(len(asked), codec.format.max_response_tokens, generator(seed, "sft", "look")),
        temperature=1.0,
        batch_size=batch_size,
    ).to(next(policy.parameters()).device)
    (entropies,) = in_microbatches(
        lambda part: (masked_mean(response_logprobs_and_entropy(policy, part, 1.0)[1], part.response_mask, dim=1),),
        sequences,
        batch_size,
    )
    tokens = sequences.responses()
    ended = sum(response[-1] in codec.stop_ids for response in tokens) / len(tokens)
    return Signs(codec.decode(tokens), ended, float(entropies.mean()), {})
