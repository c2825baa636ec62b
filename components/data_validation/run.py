"""The door of the stage `data_validation`."""

from __future__ import annotations

import logging
from pathlib import Path

from components import paths
from components.artifacts import atomic_folder, atomic_write_text, write_json
from components.config import Params
from components.data.rows import Comparison, Demonstration, Prompt, row_of, write_rows
from components.data_validation.control_tokens import control_token_checks
from components.data_validation.links import refuse_links
from components.data_validation.reading import RawFile, read_tolerantly
from components.data_validation.report import flat_metrics, page_of, price_of_the_split, quarantine_lines, report_of
from components.data_validation.schemas import FILES, FileName
from components.data_validation.validate import validate
from components.errors import DataError

_KINDS: dict[str, type[Prompt] | type[Demonstration] | type[Comparison]] = {
    "prompts": Prompt,
    "demonstrations": Demonstration,
    "comparisons": Comparison,
}
logger = logging.getLogger("proximal")


def run(params: Params) -> None:
    """Validate data/ and write artifacts/data_validation/, whole or not at all.

    Raises:
        DataError: a file is missing, empty or lacks a column, too many rows are rejected, or a check fails.
    """
    from components.tracking import stage_run

    raw = read_raw_files(paths.DATA)
    with stage_run("data_validation", params, inputs=[paths.DATA]) as tracked:
        validated = validate(raw, params.data_validation, params.seed)
        validated.checks.extend(control_token_checks(validated.kept, params.language_model))
        report = report_of(raw, validated)
        with atomic_folder(paths.DATA_VALIDATION) as folder:
            for part, rows in validated.parts.items():
                kind = _KINDS[part.partition("_")[0]]
                write_rows(folder / paths.CLEAN.name / f"{part}.jsonl", [row_of(kind, row) for row in rows])
            atomic_write_text(folder / "quarantine.jsonl", quarantine_lines(validated))
            write_json(folder / "report.json", report)
            atomic_write_text(folder / "report.html", page_of(raw, validated, report))
        for line in price_of_the_split(report):
            logger.info("%s", line)
        logger.info("%d warnings; see %s", report["warnings"], paths.DATA_VALIDATION / "report.html")
        tracked.metrics(flat_metrics(report))
        for file in FILES:
            tracked.dataset(file, paths.DATA / f"{file}.jsonl")
        tracked.artifact(paths.DATA_VALIDATION / "report.html")
        tracked.outputs(
            [paths.CLEAN]
            + [paths.DATA_VALIDATION / name for name in ("quarantine.jsonl", "report.json", "report.html")]
        )


def read_raw_files(folder: Path) -> dict[FileName, RawFile]:
    """Read the three raw files of a folder.

    Raises:
        DataError: one or more are missing, or links; all of them are named.
    """
    refuse_links(folder)
    raw: dict[FileName, RawFile] = {}
    missing: list[str] = []
    for file in FILES:
        path = folder / f"{file}.jsonl"
        try:
            raw[file] = read_tolerantly(path)
        except FileNotFoundError:
            missing.append(path.as_posix())
    if missing:
        raise DataError(
            "raw data is missing",
            where=", ".join(missing),
            expected="files of one JSON object a line",
            found="no such file" if folder.is_dir() else f"no folder {folder.as_posix()}",
            do="`dvc pull data.dvc` brings the shipped data; for your own, put these files there",
        )
    return raw
