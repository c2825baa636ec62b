"""The door of the stage `data_validation`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from components.artifacts import atomic_folder, atomic_write_text, write_json
from components.config import DataValidation, Shared
from components.data.rows import Comparison, Demonstration, Prompt, row_of, write_rows
from components.data_validation.control_tokens import control_token_checks
from components.data_validation.links import refuse_links
from components.data_validation.page import page_of
from components.data_validation.reading import RawFile, read_tolerantly
from components.data_validation.report import flat_metrics, price_of_the_split, quarantine_lines, report_of
from components.data_validation.schemas import FILES, FileName
from components.data_validation.validate import validate
from components.errors import DataError
from components.tracking import StageRun

_KINDS: dict[str, type[Prompt] | type[Demonstration] | type[Comparison]] = {
    "prompts": Prompt,
    "demonstrations": Demonstration,
    "comparisons": Comparison,
}
logger = logging.getLogger("proximal")


class Inputs(NamedTuple):
    """What is validated: a folder of raw rows."""

    data: Path


def run(settings: DataValidation, shared: Shared, inputs: Inputs, out: Path, tracked: StageRun) -> None:
    """Validate the raw rows and write clean/, the quarantine and the report to `out`, whole or not at all.

    Raises:
        DataError: a file is missing, empty or lacks a column, too many rows are rejected, or a check fails.
    """
    raw = read_raw_files(inputs.data)
    validated = validate(raw, settings, shared.seed)
    validated.checks.extend(control_token_checks(validated.kept, shared.language_model))
    report = report_of(raw, validated)
    with atomic_folder(out) as folder:
        for part, rows in validated.parts.items():
            kind = _KINDS[part.partition("_")[0]]
            write_rows(folder / "clean" / f"{part}.jsonl", [row_of(kind, row) for row in rows])
        atomic_write_text(folder / "quarantine.jsonl", quarantine_lines(validated))
        write_json(folder / "report.json", report)
        atomic_write_text(folder / "report.html", page_of(raw, validated, report))
    for line in price_of_the_split(report):
        logger.info("%s", line)
    if count := report["warnings"]:
        need = "1 check needs" if count == 1 else f"{count} checks need"
        logger.warning("%s a look: %s", need, out / "report.html")
    tracked.metrics(flat_metrics(report))
    for file in FILES:
        tracked.dataset(file, inputs.data / f"{file}.jsonl")
    tracked.artifact(out / "report.html")


def require_raw_files(folder: Path) -> None:
    """
    Raises:
        DataError: one or more of the three raw files are missing, or links; all of them are named.
    """
    refuse_links(folder)
    if missing := [path.as_posix() for file in FILES if not (path := folder / f"{file}.jsonl").exists()]:
        raise DataError(
            "raw data is missing",
            where=", ".join(missing),
            expected="files of one JSON object a line",
            found="no such file" if folder.is_dir() else f"no folder {folder.as_posix()}",
            do="`dvc pull data.dvc` brings the shipped data; for your own, put these files there",
        )


def read_raw_files(folder: Path) -> dict[FileName, RawFile]:
    """Read the three raw files of a folder; raises what `require_raw_files` does."""
    require_raw_files(folder)
    return {file: read_tolerantly(folder / f"{file}.jsonl") for file in FILES}
