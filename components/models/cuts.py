"""What the limits in tokens cut away: counted, told, and pairs that are alike without it left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from components.data.rows import Asked, Comparison
from components.errors import DataError
from components.models.text import Codec

logger = logging.getLogger("proximal")

_SHOWN = 5
_MUCH = 0.05  # of the texts; more is warned about


def cut_fractions(
    codec: Codec, where: str, prompts: Sequence[Asked], responses: Sequence[list[int]] | None = None
) -> dict[str, float]:
    """The shares of prompts and of responses in the data that are cut, as metrics; a warning where it is much.

    Args:
        where: of what stage or file, for the warning.
        responses: their tokens, as `Codec.encode_responses` gives them: one that was cut has no end.
    """
    found = {"prompts": sum(codec.are_too_long(prompts)) / len(prompts)}
    if responses is not None:
        found["responses"] = sum(row[-1] != codec.end_id for row in responses) / len(responses)
    limits = {"prompts": codec.format.max_prompt_tokens, "responses": codec.format.max_response_tokens}
    for texts, fraction in found.items():
        if fraction > _MUCH:
            logger.warning(
                "%s: %.1f %% of the %s are longer than language_model.max_%s_tokens (%d) and cut",
                *(where, 100 * fraction, texts, texts.removesuffix("s"), limits[texts]),
            )
    return {f"truncated_{texts}_fraction": fraction for texts, fraction in found.items()}


def distinct_pairs(rows: list[Comparison], codec: Codec, where: str) -> list[Comparison]:
    """The comparisons whose two responses still differ as tokens; the others are named in a warning.

    Raises:
        DataError: there are comparisons, and none is left.
    """
    sides = [codec.encode_responses(texts) for texts in _sides(rows)]
    distinct = [row for row, chosen, rejected in zip(rows, *sides, strict=True) if chosen != rejected]
    if len(distinct) == len(rows):
        return rows
    alike = [row.id for row, chosen, rejected in zip(rows, *sides, strict=True) if chosen == rejected]
    named = ", ".join(alike[:_SHOWN]) + (", ..." if len(alike) > _SHOWN else "")
    limit = codec.format.max_response_tokens
    if not distinct:
        raise DataError(
            "no comparison is left",
            where=where,
            expected=f"responses that differ in their first {limit} tokens (language_model.max_response_tokens)",
            found=f"{len(alike)} comparisons whose two responses are the same there: {named}",
            do="raise language_model.max_response_tokens",
        )
    logger.warning(
        "%s: %d of %d comparisons are left out, as their two responses are the same in their first %d tokens "
        "(language_model.max_response_tokens): %s",
        *(where, len(alike), len(rows), limit, named),
    )
    return distinct


def cut_fractions_of_pairs(codec: Codec, where: str, rows: list[Comparison]) -> dict[str, float]:
    """`cut_fractions` of comparisons."""
    responses = codec.encode_responses([text for texts in _sides(rows) for text in texts])
    return cut_fractions(codec, where, [row.asked for row in rows], responses)


def _sides(rows: list[Comparison]) -> tuple[list[str], list[str]]:
    return [row.chosen for row in rows], [row.rejected for row in rows]
