"""Checks for rows that nearly repeat one another."""

from __future__ import annotations

from components.config import DataValidation
from components.data_validation.checks import SHOWN_CHARACTERS, SHOWN_EXAMPLES, Check
from components.data_validation.comparison_keys import Keys, responses_in_order, responses_key
from components.data_validation.near_duplicates import repeated_texts, twins_between
from components.data_validation.normalisation import clipped, visible
from components.data_validation.reading import Row, place_of
from components.data_validation.schemas import FileName


def near_duplicate_check(file: FileName, rows: list[Row], limits: DataValidation, keys: Keys) -> Check:
    """Rows that deduplication would remove. Several labels of the same two responses are one row here."""
    distinct = rows
    if file == "comparisons":
        first: dict[bytes, Row] = {}
        for row in rows:
            first.setdefault(keys(row).responses, row)
        distinct = list(first.values())
    repeats = repeated_texts((_words_of(file, row) for row in distinct), limits.near_duplicate_similarity)
    fraction = len(repeats) / len(distinct) if distinct else 0.0
    return Check(
        name=f"near_duplicates_{file}",
        status="warning" if fraction > limits.max_near_duplicate_fraction else "ok",
        expected=f"few {file} nearly repeat an earlier one (word shingles, Jaccard similarity of at least "
        f"{limits.near_duplicate_similarity:g})",
        found=f"{len(repeats)} of {len(distinct)}",
        value=fraction,
        limit=limits.max_near_duplicate_fraction,
        examples=[
            f"{place_of(file, distinct[later])} repeats {place_of(file, distinct[earlier])}: "
            f"{clipped(_text_of(file, distinct[later]), SHOWN_CHARACTERS)}"
            for later, earlier in list(repeats.items())[:SHOWN_EXAMPLES]
        ],
        remedy="deduplicate the source; repeated rows count several times in training",
    )


def _words_of(file: FileName, row: Row) -> str:
    """A text with the words of all that tells a row from others."""
    if file == "comparisons":
        return "\n".join((visible(row["prompt"]), *responses_in_order(row)))
    return _text_of(file, row)


def _text_of(file: FileName, row: Row) -> str:
    """All that tells a row from others, for people."""
    if file == "comparisons":
        return "\n".join(responses_key(row))
    return "\n".join((row["prompt"], row["response"])) if file == "demonstrations" else str(row["prompt"])


def near_duplicates_across_splits_check(train: list[Row], heldout: list[Row], limits: DataValidation) -> Check:
    """Validation and test prompts that nearly are prompts of training, demonstrations or comparisons."""
    train_texts = list(dict.fromkeys(row["prompt"] for row in train))
    heldout_texts = list(dict.fromkeys(row["prompt"] for row in heldout))
    twins = twins_between(train_texts, heldout_texts, limits.near_duplicate_similarity)
    fraction = len(twins) / len(heldout_texts) if heldout_texts else 0.0
    return Check(
        name="near_duplicates_across_splits",
        status="warning" if fraction > limits.max_near_duplicate_fraction else "ok",
        expected="few validation and test prompts nearly repeat a training prompt",
        found=f"{len(twins)} of {len(heldout_texts)} held-out prompts",
        value=fraction,
        limit=limits.max_near_duplicate_fraction,
        examples=[
            f"{clipped(heldout_texts[here], SHOWN_CHARACTERS // 2)} / "
            f"{clipped(train_texts[there], SHOWN_CHARACTERS // 2)}"
            for here, there in list(twins.items())[:SHOWN_EXAMPLES]
        ],
        remedy="move such prompts to training, or the evaluation measures memory",
    )
