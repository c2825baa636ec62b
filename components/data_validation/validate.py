"""Raw rows in, clean parts, quarantine and checks out. No file is touched here."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePath

from components.config import DataValidation
from components.data_validation.checks import Check
from components.data_validation.chosen import demonstrations_of
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
from components.data_validation.reading import PLACE, BadRow, RawFile, Row
from components.data_validation.schemas import (
    FILES,
    FileName,
    MissingColumns,
    frame_of,
    row_faults,
    schema_of,
)
from components.data_validation.split_checks import (
    empty_split_check,
    few_heldout_comparisons_check,
    few_heldout_prompts_check,
    kinds_check,
    two_splits_check,
)
from components.data_validation.splits import (
    LEAKED,
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

EXAMPLE_ROWS = 5
NAMED_REASONS = 5


@dataclass(frozen=True)
class Validated:
    """All that the stage finds. Rows in `kept` and `parts` carry their place; see `reading.place_of`."""

    kept: dict[FileName, list[Row]]
    parts: dict[str, list[Row]]
    rejected: list[Rejected]
    checks: list[Check]
    labels: LabelStatistics


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
    kept, rejected = _sort_out(raw, limits, count)
    splits: list[tuple[Split, Row]] = [(split_of(row, limits, seed), row) for row in kept["prompts"]]
    heldout = {kin_key(row) for split, row in splits if split != "train"}
    named = any("split" in row for row in kept["prompts"])
    rejected += _remove_heldout_prompts(kept, heldout, withheld=not named)
    rejected.sort(key=lambda row: (FILES.index(row.file), row.row))
    _refuse_too_many(raw, rejected, limits)

    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for split, row in splits:
        parts[f"prompts_{split}"].append(row)
    for row in kept["comparisons"]:
        parts[comparison_part(row, limits, seed)].append(row)
    for part in ("comparisons_reward_model", "comparisons_judge"):
        parts[part], parts[f"{part}_heldout_pairs"] = hold_out_pairs(parts[part], limits, seed)
    if "demonstrations" not in raw:
        kept["demonstrations"] = demonstrations_of(parts["comparisons_reward_model"])
    parts["demonstrations"] = kept["demonstrations"]

    logger.info("checking the data as a whole")
    labels = label_statistics(kept["comparisons"])
    train = [*parts["prompts_train"], *kept["demonstrations"], *kept["comparisons"]]
    checks = [
        empty_split_check({part: len(rows) for part, rows in parts.items()}, given=raw),
        few_heldout_prompts_check(splits, limits),
        few_heldout_comparisons_check(parts, limits),
        two_splits_check(splits),
        *fault_checks(rejected),
        *(near_duplicate_check(file, kept[file], limits) for file in FILES),
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


def _sort_out(
    raw: dict[FileName, RawFile], limits: DataValidation, count: Count | None
) -> tuple[dict[FileName, list[Row]], list[Rejected]]:
    """Part each file into sound rows and rejected ones; one that is not given has neither."""
    faults: dict[FileName, dict[int, list[Fault]]] = {}
    broken: list[tuple[str, str, str]] = []
    for file, content in raw.items():
        if not content.rows and not content.bad_rows:
            broken.append((content.path, "at least one row", "an empty file"))
            continue
        if not content.rows:
            broken.append((content.path, "one JSON object a line", _first_bad_row(content.bad_rows)))
            continue
        try:
            faults[file] = row_faults(frame_of(content.rows), schema_of(file, limits, count))
        except MissingColumns as missing:
            present = sorted({column for row in content.rows for column in row})
            for column in missing.columns:
                broken.append((f"{content.path}, column {column}", f"a column {column}", f"columns {present}"))
    if broken:
        raise DataError(
            "the raw data lacks what every file must have",
            where="; ".join(where for where, _, _ in broken),
            expected="; ".join(expected for _, expected, _ in broken),
            found="; ".join(found for _, _, found in broken),
            do="mend what writes these files",
        )
    kept: dict[FileName, list[Row]] = {file: [] for file in FILES}
    rejected: list[Rejected] = []
    for file, content in raw.items():
        rejected += [Rejected(file, bad.number, [bad.fault], bad.content, False, bad.file) for bad in content.bad_rows]
        places = zip(content.numbers, content.files, content.rows, strict=True)
        for position, (number, name, row) in enumerate(places):
            if position in faults[file]:
                rejected.append(Rejected(file, number, faults[file][position], row, False, name))
            elif name == f"{file}.jsonl":
                kept[file].append({**row, "raw_row": number})
            else:
                kept[file].append({**row, "raw_row": number, "raw_file": name})
        logger.info("%s: %d rows, %d sound", content.path, content.size, len(kept[file]))
    return kept, rejected


def _first_bad_row(bad_rows: list[BadRow]) -> str:
    first = bad_rows[0]
    return f"{len(bad_rows)} lines, none of them a row; line {first.number}: {first.fault}"


def _remove_heldout_prompts(kept: dict[FileName, list[Row]], heldout: set[str], withheld: bool) -> list[Rejected]:
    """Take rows with validation and test prompts out of the training files.

    Where the data names its splits such a row is a leak, a fault. Where we drew the splits it is `withheld`:
    nobody could have known.
    """
    fault = WITHHELD if withheld else LEAKED
    removed: list[Rejected] = []
    training_files: tuple[FileName, ...] = ("demonstrations", "comparisons")
    for file in training_files:
        sound: list[Row] = []
        for row in kept[file]:
            if kin_key(row) in heldout:
                content = {column: value for column, value in row.items() if column not in PLACE}
                name = row.get("raw_file", f"{file}.jsonl")
                removed.append(Rejected(file, row["raw_row"], [fault], content, withheld, name))
            else:
                sound.append(row)
        kept[file] = sound
    return removed


def _refuse_too_many(raw: dict[FileName, RawFile], rejected: list[Rejected], limits: DataValidation) -> None:
    over: list[tuple[str, str]] = []
    for file, content in raw.items():
        faulty = [row for row in rejected if row.file == file and not row.withheld]
        fraction = len(faulty) / content.size
        if fraction > limits.max_reject_fraction:
            over.append(
                (
                    content.path,
                    f"{PurePath(content.path).name}: {len(faulty)} of {content.size} rows ({fraction:.4g}): "
                    + _most_frequent_reasons(faulty),
                )
            )
    if over:
        raise DataError(
            "too many rows of the raw data are rejected",
            where=", ".join(path for path, _ in over),
            expected=f"at most {limits.max_reject_fraction:g} of the rows of a file "
            "(data_validation.max_reject_fraction)",
            found="; ".join(found for _, found in over),
            do="mend these rows, or raise data_validation.max_reject_fraction to go on without them",
        )


def _most_frequent_reasons(rejected: list[Rejected]) -> str:
    """'12 times "chosen is empty" (rows 3, 7, ...), 4 times ...'"""
    rows = rows_by_reason(rejected)
    named = [
        f'{len(numbers)} times "{reason}" (row{"s" if len(numbers) > 1 else ""} '
        f"{', '.join(map(str, numbers[:EXAMPLE_ROWS]))}{', ...' if len(numbers) > EXAMPLE_ROWS else ''})"
        for reason, numbers in list(rows.items())[:NAMED_REASONS]
    ]
    if len(rows) > NAMED_REASONS:
        named.append(f"and {len(rows) - NAMED_REASONS} more reasons")
    return ", ".join(named)


def rows_by_reason(rejected: list[Rejected]) -> dict[str, list[int]]:
    """Raw rows by reason, the most frequent reason first."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row in rejected:
        for fault in row.faults:
            rows[str(fault)].append(row.row)
    counts = Counter({reason: len(numbers) for reason, numbers in rows.items()})
    return {reason: rows[reason] for reason, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


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
