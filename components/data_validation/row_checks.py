"""Rows one by one: sound ones and rejected ones, and whether these are too many."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict

from components.config import DataValidation
from components.data_validation.fault_checks import Rejected
from components.data_validation.faults import Fault
from components.data_validation.reading import BadRow, RawFile, Row
from components.data_validation.schemas import (
    FILES,
    FileName,
    MissingColumns,
    frame_of,
    row_faults,
    schema_of,
)
from components.data_validation.whole_rows import Count
from components.errors import DataError

logger = logging.getLogger("proximal")

EXAMPLE_ROWS = 5
NAMED_REASONS = 5


def check_rows(
    raw: dict[FileName, RawFile], limits: DataValidation, count: Count | None = None
) -> tuple[dict[FileName, list[Row]], list[Rejected]]:
    """The checks of single rows alone: sound rows and rejected ones; arguments and faults as of `validate`."""
    kept, rejected = sort_out(raw, limits, count)
    refuse_too_many(raw, rejected, limits)
    return kept, rejected


def sort_out(
    raw: dict[FileName, RawFile], limits: DataValidation, count: Count | None
) -> tuple[dict[FileName, list[Row]], list[Rejected]]:
    """Part each file into sound rows and rejected ones; one that is not given has neither.

    Raises:
        DataError: a file is empty or lacks a column.
    """
    sound: dict[int, bool] = {}
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
            faults[file] = row_faults(frame_of(content.rows), schema_of(file, limits, count, sound))
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


def refuse_too_many(raw: dict[FileName, RawFile], rejected: list[Rejected], limits: DataValidation) -> None:
    """
    Raises:
        DataError: more than `max_reject_fraction` of a file's rows are rejected, but for those that are withheld.
    """
    over: list[tuple[str, str]] = []
    for file, content in raw.items():
        faulty = [row for row in rejected if row.file == file and not row.withheld]
        fraction = len(faulty) / content.size
        if fraction > limits.max_reject_fraction:
            over.append(
                (
                    content.path,
                    f"{_files(content)}: {len(faulty)} of {content.size} rows ({fraction:.4g}): "
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
            do="mend these rows; or raise the limits that they break, or data_validation.max_reject_fraction, to go on "
            "with or without them",
        )


def _files(content: RawFile) -> str:
    return ", ".join(source.file for source in content.sources) or f"prompts of the {content.derived_from}"


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
