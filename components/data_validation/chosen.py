"""Demonstrations where the data brings none: the responses that people chose."""

from __future__ import annotations

from collections.abc import Iterable

from components.data_validation.comparison_keys import Keys
from components.data_validation.normalisation import fingerprint, visible
from components.data_validation.reading import Row

SOURCE = "chosen"


def demonstrations_of(comparisons: Iterable[Row], keys: Keys) -> list[Row]:
    """The chosen response to each prompt, once each however often it was chosen.

    Args:
        comparisons: those that train the reward model. The judge's are left to the judge, and what is held out tests
            the reward model: a policy that was trained on it would be scored by heart.
    """
    seen: set[tuple[bytes, bytes]] = set()
    made: list[Row] = []
    for row in comparisons:
        key = keys(row).prompt, fingerprint(visible(row["chosen"]))
        if key in seen:
            continue
        seen.add(key)
        kept = {name: row[name] for name in ("prompt", "messages", "raw_row") if name in row}
        named = {"id": f"{row['id']}/{SOURCE}", "response": row["chosen"], "source": SOURCE}
        made.append(named | kept | {"raw_file": row.get("raw_file", "comparisons.jsonl")})
    return made
