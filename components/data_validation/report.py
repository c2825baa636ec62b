"""The data report: metrics that DVC and MLflow show, and a page that a person reads."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from components.data_validation.checks import Check
from components.data_validation.normalisation import clipped, length_in_words
from components.data_validation.reading import RawFile, Row
from components.data_validation.schemas import FILES, FileName
from components.data_validation.validate import Validated, rows_by_reason
from components.reports.page import render_page

TEMPLATE = Path(__file__).with_name("report.html.jinja")
HISTOGRAM_BINS = 30
SHOWN_ROWS_PER_REASON = 3
SHOWN_CHARACTERS = 300

# Which texts a histogram shows; chosen and rejected share one, so that a length bias meets the eye.
_LENGTHS: dict[str, tuple[FileName, tuple[str, ...]]] = {
    "prompts": ("prompts", ("prompt",)),
    "demonstrations": ("demonstrations", ("response",)),
    "comparisons": ("comparisons", ("chosen", "rejected")),
}


@dataclass(frozen=True)
class Histogram:
    """Counts of texts by length in words. Bin k starts at `k * width`; the last also holds all beyond."""

    title: str
    width: int
    series: dict[str, list[int]]

    @property
    def tallest(self) -> int:
        return max(max(counts) for counts in self.series.values())

    @property
    def longest(self) -> int:
        return self.width * HISTOGRAM_BINS


def report_of(raw: dict[FileName, RawFile], validated: Validated) -> dict[str, Any]:
    """The content of report.json: numbers by file, and the checks (a list, which `dvc metrics` skips)."""
    report: dict[str, Any] = {file: _file_metrics(file, raw[file], validated) for file in FILES}
    values = {check.name: check.value for check in validated.checks}
    for name in ("annotator_agreement", "annotator_against_majority", "contradicting_labels"):
        if values[name] is not None:
            report["comparisons"][name] = values[name]
    if values["length_bias"] is not None:
        report["comparisons"]["longer_wins"] = values["length_bias"]
    report["prompts"]["near_duplicate_fraction_across_splits"] = values["near_duplicates_across_splits"]
    report["parts"] = {part: len(rows) for part, rows in validated.parts.items()}
    statuses = [check.status for check in validated.checks]
    report["warnings"] = statuses.count("warning")
    report["checks"] = [asdict(check) for check in validated.checks]
    return report


def price_of_the_split(report: dict[str, Any]) -> list[str]:
    """A line a file: what was kept, withheld for evaluation, quarantined. And one: who got the comparisons."""
    files = [
        f"{file}: {found['kept']:,} of {found['rows']:,} rows kept ({found['kept_fraction']:.1%}), "
        f"{found['withheld']:,} withheld for evaluation ({found['withheld_fraction']:.1%}), "
        f"{found['rejected']:,} faulty and quarantined ({found['rejected_fraction']:.1%})"
        for file, found in ((file, report[file]) for file in FILES)
    ]
    parts = {part: size for part, size in report["parts"].items() if part.startswith("comparisons_")}
    heldout = sum(size for part, size in parts.items() if "_heldout" in part)
    shares = {
        "the reward model trains on": parts["comparisons_reward_model"],
        "the judge on": parts["comparisons_judge"],
        "both are tested on": heldout,
    }
    rows = report["comparisons"]["rows"]
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


def quarantine_lines(validated: Validated) -> str:
    """The content of quarantine.jsonl: ASCII, so that invisible and broken characters are seen as escapes."""
    return "".join(
        json.dumps(
            {
                "file": f"{row.file}.jsonl",
                "row": row.row,
                "reasons": [str(fault) for fault in row.faults],
                "withheld": row.withheld,
                "content": row.content,
            }
        )
        + "\n"
        for row in validated.rejected
    )


def page_of(raw: dict[FileName, RawFile], validated: Validated, report: dict[str, Any]) -> str:
    """The content of report.html: self-contained, and the data's text in it is escaped."""
    return render_page(
        TEMPLATE,
        {"number": _readable},
        files=[{"name": PurePath(raw[file].path).name, **report[file]} for file in FILES],
        parts=_shares_of_parts(report),
        checks=sorted(validated.checks, key=_urgency),
        warnings=report["warnings"],
        annotators=validated.labels.annotators,
        histograms=[_histogram(title, validated) for title in _LENGTHS],
        reasons=_quarantine_examples(validated),
    )


def _shares_of_parts(report: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Part, rows, and their share of the raw file they come from."""
    return [(part, size, size / report[part.partition("_")[0]]["rows"]) for part, size in report["parts"].items()]


def _file_metrics(file: FileName, content: RawFile, validated: Validated) -> dict[str, float]:
    out = [row for row in validated.rejected if row.file == file]
    rejected = sum(not row.withheld for row in out)
    columns = _LENGTHS[file][1]
    kept = validated.kept[file]
    texts = [row[column] for row in kept for column in columns]
    near = next(check for check in validated.checks if check.name == f"near_duplicates_{file}")
    return {
        "rows": content.size,
        "kept": len(kept),
        "rejected": rejected,
        "withheld": len(out) - rejected,
        "kept_fraction": len(kept) / content.size,
        "withheld_fraction": (len(out) - rejected) / content.size,
        "rejected_fraction": rejected / content.size,
        "near_duplicate_fraction": near.value or 0.0,
        "mean_words": sum(map(length_in_words, texts)) / len(texts),
    }


def _histogram(title: str, validated: Validated) -> Histogram:
    file, columns = _LENGTHS[title]
    lengths = {column: [length_in_words(row[column]) for row in validated.kept[file]] for column in columns}
    ordered = sorted(length for column in columns for length in lengths[column])
    nearly_longest = ordered[math.ceil(0.99 * len(ordered)) - 1]  # one giant text would squash all the others
    width = max(1, math.ceil((nearly_longest + 1) / HISTOGRAM_BINS))
    series = {column: [0] * HISTOGRAM_BINS for column in columns}
    for column in columns:
        for length in lengths[column]:
            series[column][min(length // width, HISTOGRAM_BINS - 1)] += 1
    return Histogram(title, width, series)


def _quarantine_examples(validated: Validated) -> list[dict[str, Any]]:
    shown = []
    for file in FILES:
        rejected = [row for row in validated.rejected if row.file == file]
        content = {row.row: row.content for row in rejected}
        for reason, rows in rows_by_reason(rejected).items():
            shown.append(
                {
                    "file": f"{file}.jsonl",
                    "reason": reason,
                    "count": len(rows),
                    "examples": [(row, _excerpt(content[row])) for row in rows[:SHOWN_ROWS_PER_REASON]],
                }
            )
    return shown


def _excerpt(content: Row | str) -> str:
    return clipped(content if isinstance(content, str) else json.dumps(content), SHOWN_CHARACTERS)


def _readable(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _urgency(check: Check) -> int:
    return ("failure", "warning", "ok", "not in the data").index(check.status)
