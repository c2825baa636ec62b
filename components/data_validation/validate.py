"""Raw rows in, clean parts, quarantine and checks out. No file is touched here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from components.config import DataValidation
from components.data_validation.checks import Check
from components.data_validation.chosen import demonstrations_of
from components.data_validation.comparison_keys import keys
from components.data_validation.conversation_checks import conversation_checks
from components.data_validation.duplicate_checks import near_duplicate_check, near_duplicates_across_splits_check
from components.data_validation.fault_checks import Rejected, fault_checks
from components.data_validation.faults import Fault
from components.data_validation.label_checks import (
    agreement_check,
    contradiction_check,
    label_counts_check,
    length_bias_check,
    majority_check,
)
from components.data_validation.labels import LabelStatistics, label_statistics
from components.data_validation.normalisation import length_in_words
from components.data_validation.reading import PLACE, RawFile, Row
from components.data_validation.row_checks import refuse_too_many, sort_out
from components.data_validation.schemas import FILES, FileName
from components.data_validation.split_checks import (
    empty_split_check,
    few_heldout_comparisons_check,
    few_heldout_prompts_check,
    kinds_check,
    two_splits_check,
)
from components.data_validation.splits import (
    HELD_OUT,
    LEAKED,
    OF_HELD_OUT,
    PARTS,
    WITHHELD,
    Split,
    comparison_part,
    hold_out_pairs,
    kin_key,
    split_of,
)
from components.data_validation.whole_rows import Count
from components.errors import DataError

logger = logging.getLogger("proximal")


# Whose length is told of each file.
TEXTS: dict[FileName, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "demonstrations": ("response",),
    "comparisons": ("chosen", "rejected"),
}


@dataclass(frozen=True)
class Validated:
    """All that the stage finds. Rows in `kept` and `parts` carry their place; see `reading.place_of`."""

    kept: dict[FileName, list[Row]]
    parts: dict[str, list[Row]]
    rejected: list[Rejected]
    checks: list[Check]
    labels: LabelStatistics

    @cached_property
    def words(self) -> dict[FileName, dict[str, list[int]]]:
        """The lengths of all texts that are kept, by file and column. Units: words."""
        return {
            file: {name: [length_in_words(row[name]) for row in self.kept[file]] for name in names}
            for file, names in TEXTS.items()
        }


def validate(raw: dict[FileName, RawFile], limits: DataValidation, seed: int, count: Count | None = None) -> Validated:
    """Check the raw data, part it, and describe it.

    Args:
        raw: without the demonstrations where there are none, which are then the chosen responses; without comparisons
            where nothing is trained on them.
        count: the lengths of texts in tokens; None where there is no tokenizer yet.

    Raises:
        DataError: a file is empty or lacks a column; more than `max_reject_fraction` of a file's rows are
            rejected; or a dataset-level check fails. All faults of such a step are in the one message.
    """
    kept, rejected = sort_out(raw, limits, count)
    derived = "prompts" in raw and raw["prompts"].derived_from is not None
    named = {row["split"] for row in kept["prompts"] if "split" in row}
    # The splits of a data set of comparisons are often train and test alone: the third is drawn from the first.
    drawn = [split for split in HELD_OUT if split not in named] if derived or not named else []
    splits: list[tuple[Split, Row]] = [(split_of(row, limits, seed, drawn), row) for row in kept["prompts"]]
    heldout = {kin_key(row): split for split, row in splits if split != "train"}
    leaks: dict[str, Fault] = {} if derived else {split: LEAKED for split in named}
    rejected += _remove_heldout_prompts(kept, heldout, leaks)
    rejected.sort(key=lambda row: (FILES.index(row.file), row.row))
    refuse_too_many(raw, rejected, limits)

    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for split, row in splits:
        parts[f"prompts_{split}"].append(row)
    key = keys(seed)
    for row in kept["comparisons"]:
        parts[comparison_part(row, limits, seed, key)].append(row)
    for part in ("comparisons_reward_model", "comparisons_judge"):
        parts[part], parts[f"{part}_heldout_pairs"] = hold_out_pairs(parts[part], limits, seed, key)
    if "demonstrations" not in raw:
        kept["demonstrations"] = demonstrations_of(parts["comparisons_reward_model"], key)
    parts["demonstrations"] = kept["demonstrations"]

    logger.info("checking the data as a whole")
    labels = label_statistics(kept["comparisons"], key)
    train = [*parts["prompts_train"], *kept["demonstrations"], *kept["comparisons"]]
    checks = [
        empty_split_check({part: len(rows) for part, rows in parts.items()}, given=raw),
        few_heldout_prompts_check(splits, limits),
        few_heldout_comparisons_check(parts, limits),
        two_splits_check(splits),
        *fault_checks(rejected),
        *(near_duplicate_check(file, kept[file], limits, key) for file in FILES),
        near_duplicates_across_splits_check(train, parts["prompts_validation"] + parts["prompts_test"], limits),
        contradiction_check(kept["comparisons"], labels),
        agreement_check(labels, limits),
        majority_check(labels, limits),
        length_bias_check(kept["comparisons"], limits),
        kinds_check(kept["prompts"]),
        *conversation_checks(kept["prompts"]),
        label_counts_check(labels),
    ]
    _refuse_failures(raw, checks)
    return Validated(kept, parts, rejected, checks, labels)


def _remove_heldout_prompts(
    kept: dict[FileName, list[Row]], heldout: Mapping[str, Split], leaks: Mapping[str, Fault]
) -> list[Rejected]:
    """Take rows of validation and test, or with prompts of these, out of the training files.

    A row that says so itself is `withheld`, and so is one whose prompt we drew, for nobody could have known.

    Args:
        heldout: the split of each held-out prompt, by its kin.
        leaks: the splits that the data names for prompts: a training row with a prompt of such a one is at fault.
    """
    removed: list[Rejected] = []
    training_files: tuple[FileName, ...] = ("demonstrations", "comparisons")
    for file in training_files:
        sound: list[Row] = []
        for row in kept[file]:
            own, split = row.get("split") in HELD_OUT, heldout.get(kin_key(row))
            if not own and split is None:
                sound.append(row)
                continue
            leak = None if own else leaks.get(str(split))
            fault = leak or (OF_HELD_OUT if own else WITHHELD)
            content = {column: value for column, value in row.items() if column not in PLACE}
            name = row.get("raw_file", f"{file}.jsonl")
            removed.append(Rejected(file, row["raw_row"], [fault], content, leak is None, name))
        kept[file] = sound
    return removed


def _refuse_failures(raw: dict[FileName, RawFile], checks: list[Check]) -> None:
    failures = [check for check in checks if check.status == "failure"]
    if failures:
        raise DataError(
            "the raw data fails " + ("a check" if len(failures) == 1 else f"{len(failures)} checks"),
            where=", ".join(content.path for content in raw.values()),
            expected="; ".join(check.expected for check in failures),
            found="; ".join(
                check.found + (f" ({'; '.join(check.examples)})" if check.examples else "") for check in failures
            ),
            do="; ".join(check.remedy for check in failures),
        )
