"""What is asked of every comparison again and again: who it is the same as, and for whom it is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from components.data_validation.normalisation import fingerprint, prompt_key, visible
from components.data_validation.reading import Row
from components.seeding import derive_seed


class ComparisonKey(NamedTuple):
    """What stands for the texts of a comparison where only their being equal counts, and what it is drawn for.

    Args:
        prompt: equal for those of one prompt.
        responses: equal for those of one prompt and the same two responses, whichever of them was chosen.
        chosen_is_first: of the two responses in the order of their characters: equal for equal labels.
        judge, heldout_pair: positions in the unit interval, by prompt and responses.
    """

    prompt: bytes
    responses: bytes
    chosen_is_first: bool
    judge: float
    heldout_pair: float


Keys = Callable[[Row], ComparisonKey]


def keys(seed: int) -> Keys:
    """What makes the key of a comparison, once each: the texts are long, and four checks ask for it.

    It knows a row by its place in memory, and keeps the row, so that no other one comes there.
    """
    known: dict[int, tuple[Row, ComparisonKey]] = {}

    def key(comparison: Row) -> ComparisonKey:
        found = known.get(id(comparison))
        if found is None:
            found = known[id(comparison)] = comparison, key_of(comparison, seed)
        return found[1]

    return key


def key_of(comparison: Row, seed: int) -> ComparisonKey:
    """The key of one comparison; every draw is a hash of the seed and the texts."""
    texts = responses_key(comparison)
    name = json.dumps(texts)
    return ComparisonKey(
        prompt=fingerprint(texts[0]),
        responses=fingerprint(*texts),
        chosen_is_first=visible(comparison["chosen"]) == texts[1],
        judge=position_in_unit_interval(seed, "judge", name),
        heldout_pair=position_in_unit_interval(seed, "heldout_pair", name),
    )


def responses_key(comparison: Row) -> tuple[str, str, str]:
    """The prompt and its two responses as a reader sees them, whichever of them was chosen."""
    return prompt_key(comparison["prompt"]), *responses_in_order(comparison)


def responses_in_order(comparison: Row) -> tuple[str, str]:
    """The two responses as a reader sees them, in the order of their characters."""
    first, second = sorted((visible(comparison["chosen"]), visible(comparison["rejected"])))
    return first, second


def position_in_unit_interval(seed: int, stream: str, key: str) -> float:
    """A number in [0, 1) that depends on the arguments alone, uniform over keys."""
    return derive_seed(seed, "data_validation", stream, key) / 2**63
