"""The data report in numbers: metrics that DVC and MLflow show, the quarantine, a few lines for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import Any

from components.data_validation.conversation_checks import turns_of
from components.data_validation.conversations import texts_of
from components.data_validation.reading import RawFile, Row
from components.data_validation.schemas import FILES, FileName
from components.data_validation.validate import TEXTS, Validated
from components.data_validation.whole_rows import Count

COUNTED_ROWS = 2000


def report_of(raw: dict[FileName, RawFile], validated: Validated, count: Count | None = None) -> dict[str, Any]:
    """The content of report.json: numbers by file, and the checks (a list, which `dvc metrics` skips)."""
    report: dict[str, Any] = {file: _file_metrics(file, raw.get(file), validated, count) for file in FILES}
    values = {check.name: check.value for check in validated.checks}
    for name in ("annotator_agreement", "annotator_against_majority", "contradicting_labels"):
        if values[name] is not None:
            report["comparisons"][name] = values[name]
    if values["length_bias"] is not None:
        report["comparisons"]["longer_wins"] = values["length_bias"]
    report["prompts"]["near_duplicate_fraction_across_splits"] = values["near_duplicates_across_splits"]
    if any(row.get("messages") for row in validated.kept["prompts"]):
        turns = turns_of(validated.kept["prompts"])
        report["prompts"] |= {"median_turns": median(turns), "most_turns": max(turns)}
    report["files"] = files_read(raw)
    report["parts"] = {part: len(rows) for part, rows in validated.parts.items()}
    statuses = [check.status for check in validated.checks]
    report["warnings"] = statuses.count("warning")
    report["checks"] = [asdict(check) for check in validated.checks]
    return report


def files_read(raw: dict[FileName, RawFile]) -> list[dict[str, Any]]:
    """What was read: every file with its format and what became of its rows; and where prompts are taken from."""
    files = [
        {
            "file": source.file,
            "kind": source.kind,
            "format": source.format,
            "role": role,
            "rows": source.rows,
            "unused": dict(source.unused),
        }
        for role, content in raw.items()
        for source in content.sources
    ]
    derived = [
        {"file": "", "kind": "", "format": f"prompts of the {content.derived_from}", "role": role, "rows": content.size}
        for role, content in raw.items()
        if content.derived_from is not None
    ]
    return files + [{**each, "unused": {}} for each in derived]


def price_of_the_split(report: dict[str, Any]) -> list[str]:
    """A line a file: what was kept, withheld for evaluation, quarantined. And one: who got the comparisons."""
    files = [
        f"{file}: {found['kept']:,} of {found['rows']:,} rows kept ({found['kept_fraction']:.1%}), "
        f"{found['withheld']:,} withheld for evaluation ({found['withheld_fraction']:.1%}), "
        f"{found['rejected']:,} faulty and quarantined ({found['rejected_fraction']:.1%})"
        for file, found in ((file, report[file]) for file in FILES)
        if found["rows"]
    ]
    rows = report["comparisons"]["rows"]
    if not rows:
        return files
    parts = {part: size for part, size in report["parts"].items() if part.startswith("comparisons_")}
    heldout = sum(size for part, size in parts.items() if "_heldout" in part)
    shares = {
        "the reward model trains on": parts["comparisons_reward_model"],
        "the judge on": parts["comparisons_judge"],
        "both are tested on": heldout,
    }
    told = ", ".join(f"{who} {size:,} ({size / rows:.1%})" for who, size in shares.items())
    return [*files, f"of the comparisons {told}"]


def flat_metrics(report: dict[str, Any]) -> dict[str, float]:
    """The numbers of a report by path, e.g. `comparisons/longer_wins`."""
    flat: dict[str, float] = {}
    for name, value in report.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{inner}": number for inner, number in flat_metrics(value).items()}
        elif isinstance(value, int | float):
            flat[name] = value
    return flat


def quarantine_lines(validated: Validated) -> Iterator[str]:
    """The lines of quarantine.jsonl: ASCII, so that invisible and broken characters are seen as escapes."""
    return (
        json.dumps(
            {
                "file": row.raw_file,
                "row": row.row,
                "reasons": [str(fault) for fault in row.faults],
                "withheld": row.withheld,
                "content": row.content,
            }
        )
        + "\n"
        for row in validated.rejected
    )


def _file_metrics(
    file: FileName, content: RawFile | None, validated: Validated, count: Count | None
) -> dict[str, float]:
    """Of a file that is not given, those of the rows that were made in its place, if any."""
    out = [row for row in validated.rejected if row.file == file]
    rejected = sum(not row.withheld for row in out)
    kept = validated.kept[file]
    words = [length for lengths in validated.words[file].values() for length in lengths]
    size = content.size if content else len(kept)
    near = next(check for check in validated.checks if check.name == f"near_duplicates_{file}")
    return {
        "rows": size,
        "kept": len(kept),
        "rejected": rejected,
        "withheld": len(out) - rejected,
        "kept_fraction": _share(len(kept), size),
        "withheld_fraction": _share(len(out) - rejected, size),
        "rejected_fraction": _share(rejected, size),
        "near_duplicate_fraction": near.value or 0.0,
        "mean_words": _share(sum(words), len(words)),
        **(_tokens(file, kept, count) if count and kept else {}),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _tokens(file: FileName, kept: list[Row], count: Count) -> dict[str, float]:
    """How long texts are in tokens: enough rows, evenly spaced, to know it. Units: tokens."""
    rows = kept[:: math.ceil(len(kept) / COUNTED_ROWS)]
    texts = [texts_of(row) if column == "prompt" else [row[column]] for row in rows for column in TEXTS[file]]
    lengths = iter(count([text for each in texts for text in each]))
    totals = sorted(sum(next(lengths) for _ in each) for each in texts)
    return {"median_tokens": median(totals), "tokens_of_95_percent": totals[math.ceil(0.95 * len(totals)) - 1]}
