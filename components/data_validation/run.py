"""The door of the stage `data_validation`."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from components.artifacts import atomic_folder, atomic_write_parts, atomic_write_text, write_json
from components.config import DataValidation, Shared
from components.data.rows import Comparison, Demonstration, Prompt, row_of, write_rows
from components.data_validation.chat_checks import require_readable_conversations
from components.data_validation.control_tokens import control_token_checks
from components.data_validation.gathering import read_raw_files
from components.data_validation.page import page_of
from components.data_validation.report import flat_metrics, price_of_the_split, quarantine_lines, report_of
from components.data_validation.tokens import token_counter
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


def run(
    settings: DataValidation,
    shared: Shared,
    inputs: Inputs,
    out: Path,
    tracked: StageRun,
    trained_on_comparisons: Collection[str] = (),
) -> None:
    """Validate the raw rows and write clean/, the quarantine and the report to `out`, whole or not at all.

    Args:
        trained_on_comparisons: what is, see `Params`; where nothing is, there need be none.

    Raises:
        DataError: a file is missing, empty or lacks a column, too many rows are rejected, or a check fails.
        ConfigError: the checkpoint's tokenizer cannot be loaded, or its template does not suit the data.
    """
    raw = read_raw_files(inputs.data, shared.data.columns)
    if "comparisons" not in raw and trained_on_comparisons:
        raise _no_comparisons(inputs.data, trained_on_comparisons)
    count = token_counter(shared.language_model)
    validated = validate(raw, settings, shared.seed, count)
    require_readable_conversations(validated.kept, shared.language_model)
    validated.checks.extend(control_token_checks(validated.kept, shared.language_model))
    report = report_of(raw, validated, count)
    with atomic_folder(out) as folder:
        for part, rows in validated.parts.items():
            kind = _KINDS[part.partition("_")[0]]
            write_rows(folder / "clean" / f"{part}.jsonl", (row_of(kind, row) for row in rows))
        atomic_write_parts(folder / "quarantine.jsonl", quarantine_lines(validated))
        write_json(folder / "report.json", report)
        atomic_write_text(folder / "report.html", page_of(raw, validated, report))
    for line in price_of_the_split(report):
        logger.info("%s", line)
    if warnings := report["warnings"]:
        need = "1 check needs" if warnings == 1 else f"{warnings} checks need"
        logger.warning("%s a look: %s", need, out / "report.html")
    tracked.metrics(flat_metrics(report))
    for file, content in raw.items():
        for source in content.sources:
            own = source.file == f"{file}.jsonl"
            tracked.dataset(file if own else f"{file}: {source.file}", inputs.data / source.file)
    tracked.artifact(out / "report.html")


def _no_comparisons(data: Path, trained: Collection[str]) -> DataError:
    return DataError(
        "there are no comparisons, and something is trained on them",
        where=data.as_posix(),
        expected=f"comparisons for {', '.join(trained)}",
        found="prompts and demonstrations only",
        do="add comparisons; or give reward_model.parts and judge.parts other sources than `trained`, such as a "
        "function, and take a method that has a reward",
    )
