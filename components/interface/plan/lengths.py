"""How long the sequences are that stages work on: of the validated rows where there are such, else the limits."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from components.config import LanguageModel, Params
from components.data.rows import Comparison, Demonstration, Prompt, read_rows
from components.models.codecs import checkpoint_codec
from components.models.loading import load_codec
from components.models.text import Codec
from components.place import Place

_SCORERS = ("reward_model", "judge")
_MANY = 4096  # more than a batch has
_DRAWS = 200  # batches that are drawn to find the largest microbatch

Pair = tuple[int, int]  # tokens of a prompt and of a response


class Lengths(NamedTuple):
    """Tokens of the prompt and of the response of every sequence, by what it is for.

    Args:
        source: where they come from, for people.
        are_rows: whether there are as many as there are rows.
    """

    demonstrations: list[Pair]
    comparisons: dict[str, list[tuple[Pair, Pair]]]  # chosen and rejected, by stage
    prompts: list[int]
    tested: list[int]
    validated: list[int]
    source: str
    are_rows: bool


def lengths_of(params: Params, place: Place) -> Lengths:
    """See above; a response that is yet to be sampled is as long as it may be."""
    config, clean = params.language_model, place.clean
    codec = _codec(config, place)
    if codec is None or not (clean / "prompts_train.jsonl").exists():
        whole = (config.max_prompt_tokens, config.max_response_tokens)
        prompts_of_any = [config.max_prompt_tokens] * _MANY
        return Lengths(
            demonstrations=[whole] * _MANY,
            comparisons={stage: [(whole, whole)] * _MANY for stage in _SCORERS},
            prompts=prompts_of_any,
            tested=prompts_of_any,
            validated=prompts_of_any,
            source="language_model.max_prompt_tokens and max_response_tokens (no validated rows are here yet): what is "
            "shorter takes less; so many rows are not known, so that no tokens are counted",
            are_rows=False,
        )

    def pairs(name: str, kind: type[Any], *sides: str) -> list[list[Pair]]:
        """Of every row its prompt with each side's response."""
        path = clean / f"{name}.jsonl"
        rows = read_rows(path, kind) if path.exists() else []
        if not rows:
            return []
        prompts = [len(tokens) for tokens in codec.encode_prompts([row.asked for row in rows])]
        found = []
        for side in sides:
            responses = codec.encode_responses([getattr(row, side) for row in rows])
            found.append([(prompt, len(each)) for prompt, each in zip(prompts, responses, strict=True)])
        return [list(row) for row in zip(*found, strict=True)]

    def prompts(part: str) -> list[int]:
        rows = read_rows(clean / f"prompts_{part}.jsonl", Prompt)
        return [len(tokens) for tokens in codec.encode_prompts([row.asked for row in rows])]

    return Lengths(
        demonstrations=[row[0] for row in pairs("demonstrations", Demonstration, "response")],
        comparisons={
            stage: [(row[0], row[1]) for row in pairs(f"comparisons_{stage}", Comparison, "chosen", "rejected")]
            for stage in _SCORERS
        },
        prompts=prompts("train"),
        tested=prompts("test"),
        validated=prompts("validation"),
        source=f"the validated rows in {clean}",
        are_rows=True,
    )


def largest_microbatch(lengths: Sequence[int], batch_size: int, size: int) -> list[int]:
    """The row numbers of the microbatch with most tokens in an epoch, as training cuts a batch: like lengths together.

    Batches are drawn at random; of what is drawn the largest is taken.
    """
    batch_size = min(batch_size, len(lengths))
    numbers, draw = list(range(len(lengths))), random.Random(0)
    best: list[int] = []
    most = -1
    for _ in range(_DRAWS if len(lengths) > batch_size else 1):
        batch = sorted(draw.sample(numbers, batch_size), key=lengths.__getitem__)
        cut = [batch[start : start + size] for start in range(0, len(batch), size)]
        for part in cut:
            if (tokens := sum(lengths[row] for row in part)) > most:
                best, most = part, tokens
    return best


def _codec(config: LanguageModel, place: Place) -> Codec | None:
    """The checkpoint's, or the one that SFT stored; None for one that is yet to be trained."""
    if config.checkpoint != "scratch":
        return checkpoint_codec(config, ())
    stored = place.sft / "policy"
    return load_codec(stored) if (stored / "tokenizer.json").exists() else None


def vocabulary_of_scratch(config: LanguageModel, place: Place) -> int:
    """What a tokenizer that is trained here has; one that is yet to be trained may get fewer."""
    stored = place.sft / "policy" / "config.json"
    if stored.exists():
        return int(json.loads(stored.read_text())["vocab_size"])
    return config.scratch.vocabulary_size
