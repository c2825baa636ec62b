"""The data report as a page that a person reads."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data_validation.checks import Check
from components.data_validation.labels import AnnotatorRecord, LabelStatistics
from components.data_validation.normalisation import clipped
from components.data_validation.reading import RawFile, Row
from components.data_validation.row_checks import rows_by_reason
from components.data_validation.schemas import FILES, FileName
from components.data_validation.validate import TEXTS, Validated
from components.reports.page import render_page

TEMPLATE = Path(__file__).with_name("report.html.jinja")
HISTOGRAM_BINS = 30
SHOWN_COMPARISONS = 3
SHOWN_ROWS_PER_REASON = 3
SHOWN_CHARACTERS = 160
FINE = ("ok", "not in the data")
_ROUND = (1, 2, 5)  # ticks are these, times a power of ten


@dataclass(frozen=True)
class Histogram:
    """Counts of texts by length in words. Bin k starts at `k * width`; the last also holds all beyond.

    tallest: of this histogram and of those beside it, which have its scale.
    """

    title: str
    width: int
    counts: list[int]
    tallest: int

    @property
    def longest(self) -> int:
        return self.width * HISTOGRAM_BINS

    @property
    def ticks(self) -> list[int]:
        """Round counts up to the highest bar."""
        return _ticks(self.tallest, 3)

    @property
    def words(self) -> list[int]:
        """Round lengths up to the longest."""
        return _ticks(self.longest, 6)


def page_of(raw: dict[FileName, RawFile], validated: Validated, report: dict[str, Any]) -> str:
    """The content of report.html: self-contained, and the data's text in it is escaped."""
    checks = sorted(validated.checks, key=_urgency)
    return render_page(
        TEMPLATE,
        files=[{"key": file, "name": _name(file, raw), **report[file]} for file in FILES],
        read=report["files"],
        comparisons=report["comparisons"],
        counted=any("median_tokens" in report[file] for file in FILES),
        conversations=next((check for check in checks if check.name == "conversations"), None),
        parts=_shares_of_parts(report),
        urgent=[check for check in checks if check.status not in FINE],
        fine=[check for check in checks if check.status in FINE],
        examples=_evenly_spaced(validated.kept["comparisons"], SHOWN_COMPARISONS),
        annotators=_annotators(validated.labels),
        mean_agreement=validated.labels.mean_agreement,
        histograms=[histogram for file in FILES for histogram in _histograms(file, validated)],
        quarantine=_quarantine_examples(validated),
    )


def _name(file: FileName, raw: dict[FileName, RawFile]) -> str:
    """Where rows of a kind come from."""
    if file not in raw:
        return "the chosen responses" if file == "demonstrations" and "comparisons" in raw else "none"
    if raw[file].derived_from is not None:
        return f"prompts of the {raw[file].derived_from}"
    return ", ".join(source.file for source in raw[file].sources)


def _shares_of_parts(report: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Part, rows, and their share of the raw file they come from."""
    rows = {part: report[part.partition("_")[0]]["rows"] for part in report["parts"]}
    return [(part, size, size / max(rows[part], 1)) for part, size in report["parts"].items()]


def _evenly_spaced(rows: list[Row], shown: int) -> list[Row]:
    step = max(1, len(rows) // shown)
    return rows[step // 2 :: step][:shown]


def _annotators(labels: LabelStatistics) -> list[tuple[str, AnnotatorRecord, str]]:
    """Name, record, and whether it is off the mean of all beyond chance; the lowest first."""
    mean = labels.mean_agreement

    def said(record: AnnotatorRecord) -> str:
        if mean is None or record.interval is None:
            return "too few to say"
        if record.interval.high < mean:
            return "below the others"
        return "above the others" if record.interval.low > mean else "within chance"

    ordered = sorted(
        labels.annotators.items(), key=lambda item: (item[1].agreement is None, item[1].agreement, item[0])
    )
    return [(name, record, said(record)) for name, record in ordered]


def _histograms(file: FileName, validated: Validated) -> list[Histogram]:
    """One a text of the file's rows, on one scale, so that a length bias meets the eye."""
    if not validated.kept[file]:
        return []
    lengths = validated.words[file]
    ordered = sorted(length for each in lengths.values() for length in each)
    nearly_longest = ordered[math.ceil(0.99 * len(ordered)) - 1]  # one giant text would squash all the others
    width = max(1, math.ceil((nearly_longest + 1) / HISTOGRAM_BINS))
    counts = {name: [0] * HISTOGRAM_BINS for name in lengths}
    for name, each in lengths.items():
        for length in each:
            counts[name][min(length // width, HISTOGRAM_BINS - 1)] += 1
    tallest = max(max(each) for each in counts.values())
    return [Histogram(f"{file}: {name}", width, each, tallest) for name, each in counts.items()]


def _ticks(highest: int, wanted: int) -> list[int]:
    """At most `wanted` round numbers from the first step to the highest."""
    steps = (unit * 10**power for power in range(len(str(highest)) + 1) for unit in _ROUND)
    step = next(step for step in steps if highest // step <= wanted)
    return list(range(step, highest + 1, step))


def _quarantine_examples(validated: Validated) -> list[dict[str, Any]]:
    """A table a reason: its first rows, the texts each in a column of its own."""
    shown = []
    for file in FILES:
        rejected = [row for row in validated.rejected if row.file == file]
        content = {row.row: row.content for row in rejected}
        texts = list(dict.fromkeys(("prompt", *TEXTS[file])))
        for reason, numbers in rows_by_reason(rejected).items():
            rows = [_shown_row(number, content[number], texts) for number in numbers[:SHOWN_ROWS_PER_REASON]]
            shown.append(
                {"file": f"{file}.jsonl", "reason": reason, "count": len(numbers), "texts": texts, "rows": rows}
            )
    return shown


def _shown_row(number: int, content: Row | str, texts: Collection[str]) -> dict[str, Any]:
    """Values in ASCII, so that invisible and broken characters are seen as escapes."""
    fields: dict[str, object] = {"line": content} if isinstance(content, str) else content  # a line that is no JSON
    told = {name: clipped(_ascii(value), SHOWN_CHARACTERS) for name, value in fields.items()}
    return {
        "number": number,
        "texts": {name: told.pop(name, "\N{EN DASH}") for name in texts},
        "others": told,
    }


def _ascii(value: object) -> str:
    text = json.dumps(value)
    return text[1:-1].replace('\\"', '"') if isinstance(value, str) and value else text


def _urgency(check: Check) -> int:
    return ("failure", "warning", "ok", "not in the data").index(check.status)
