"""Sampling responses: the policy itself, with no top-k, top-p or penalty, so that stored logprobs are the policy's.

Each token is drawn by inverting the distribution at a uniform number given beforehand. A response therefore depends on
its own row of numbers alone: not on the batch around it, the order, or the number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from components.core.checks import require_finite
from components.engines.cache import make_room
from components.engines.gpu_decoding import Decoding, can_decode_on_gpu, decode_on_gpu, takes_ready_masks
from components.engines.sampling import draw, require_sound
from components.models.best_of_n import BestOfNPolicy, candidate_uniforms
from components.models.text import Codec
from components.passes.attention import takes_packed_sequences
from components.passes.forward import in_microbatches, position_ids, sequence_scores
from components.passes.sequences import Sequences, pad_left, pad_right

# Rows that have ended are taken out of the batch once they are this share of it: less often costs idle rows, more
# often costs copies of the key-value cache.
_COMPACTION_SHARE = 0.25


@torch.no_grad()
def generate(
    policy: Any,
    codec: Codec,
    prompts: list[list[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    batch_size: int,
    logprobs: Tensor | None = None,
) -> Sequences:
    """Sample one response to every prompt.

    Args:
        policy: a causal language model, or a `BestOfNPolicy`, which gives the best of its n responses.
        prompts: token ids, as `Codec.encode_prompts` gives them.
        uniforms: (B, T) uniform numbers; T is the longest response.
        batch_size: how many prompts are worked on at once; changes the speed only.
        logprobs: (B, T) on the CPU, filled in place with those that the tokens were drawn with, in nats at the
            temperature, 0 where there is no token; of a `BestOfNPolicy`, which draws all n, it stays as it is.
    Returns:
        The prompts with their responses, on the CPU, in the order given. A response that reached T tokens without an
        end token has none.
    Raises:
        TrainingError: logits, or a score that a BestOfNPolicy would choose by, are not finite.
    """
    if isinstance(policy, BestOfNPolicy):
        return _generate_best(policy, codec, prompts, uniforms, temperature=temperature, batch_size=batch_size)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    responses: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        drawn_with = None if logprobs is None else torch.zeros(len(rows), logprobs.shape[1], dtype=logprobs.dtype)
        answers = _generate_batch(
            policy, codec, [prompts[row] for row in rows], uniforms[rows], temperature, drawn_with
        )
        if logprobs is not None and drawn_with is not None:
            logprobs[rows] = drawn_with
        for row, answer in zip(rows, answers, strict=True):
            responses[row] = answer
    return Sequences(*pad_left(prompts, codec.pad_id), *pad_right(responses, codec.pad_id))


def _generate_best(
    policy: BestOfNPolicy,
    codec: Codec,
    prompts: list[list[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    batch_size: int,
) -> Sequences:
    repeated = [prompt for prompt in prompts for _ in range(policy.n)]
    drawn = candidate_uniforms(uniforms, policy.n)
    candidates = generate(policy.policy, codec, repeated, drawn, temperature=temperature, batch_size=batch_size)
    device = next(policy.parameters()).device
    (scores,) = in_microbatches(lambda part: (sequence_scores(policy.scorer, part),), candidates.to(device), batch_size)
    require_finite("the scores that the best response is chosen by", scores)
    best = scores.reshape(-1, policy.n).argmax(dim=1).cpu()  # of equal ones the first
    return candidates.rows(torch.arange(len(prompts)) * policy.n + best)


def _generate_batch(
    policy: Any,
    codec: Codec,
    prompts: list[list[int]],
    uniforms: Tensor,
    temperature: float,
    logprobs: Tensor | None,
) -> list[list[int]]:
    device = next(policy.parameters()).device
    tokens, mask = (part.to(device) for part in pad_left(prompts, codec.pad_id))
    uniforms = uniforms.to(device)
    positions = position_ids(mask)
    output = policy(
        input_ids=tokens,
        attention_mask=mask.long(),
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    )
    cache, inner = output.past_key_values, getattr(policy, "policy", policy)  # a guided one has it inside
    next_position = positions[:, -1:] + 1
    if takes_ready_masks(inner) and can_decode_on_gpu(cache, device) and not getattr(inner, "needs_others", False):
        return decode_on_gpu(Decoding(policy, output, mask, next_position, uniforms, temperature, codec), logprobs)
    make_room(cache, uniforms.shape[1], widened=takes_packed_sequences(inner))
    responses = torch.full((len(prompts), uniforms.shape[1]), codec.pad_id, device=device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    active = torch.arange(len(prompts), device=device)  # the rows of `responses` still in the batch
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # of the rows in the batch
    sound = torch.ones((), dtype=torch.bool, device=device)
    of_step = None if logprobs is None else uniforms.new_empty(len(prompts))
    drawn_with = None if logprobs is None else torch.zeros_like(uniforms)

    for step in range(uniforms.shape[1]):
        drawn = draw(output.logits[:, -1], uniforms[active, step], temperature, sound, of_step)
        running = active[~ended]
        if drawn_with is not None and of_step is not None:
            drawn_with[running, step] = of_step[~ended]
        responses[running, step] = drawn[~ended]
        lengths[running] = step + 1
        ended = ended | codec.is_stop(drawn)
        ended_count = int(ended.sum())
        if ended_count == len(active) or step + 1 == uniforms.shape[1]:
            break
        if ended_count >= _COMPACTION_SHARE * len(active):
            keep = (~ended).nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            active, mask, next_position, drawn = active[keep], mask[keep], next_position[keep], drawn[keep]
            ended = ended[keep]
            of_step = of_step if of_step is None else of_step[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        output = policy(
            input_ids=drawn[:, None],
            attention_mask=mask.long(),
            position_ids=next_position,
            past_key_values=cache,
            use_cache=True,
        )
        next_position = next_position + 1
    require_sound(sound)
    if logprobs is not None and drawn_with is not None:
        logprobs.copy_(drawn_with)
    return [row[:length] for row, length in zip(responses.tolist(), lengths.tolist(), strict=True)]
