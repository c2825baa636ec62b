"""Checks of single rows, summed up: how many were rejected for which kind of fault."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from components.data_validation.checks import SHOWN_EXAMPLES, Check
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.reading import Row
from components.data_validation.schemas import FileName


@dataclass(frozen=True)
class Rejected:
    """A row that is not in the clean data, and why. A withheld row is sound, but its prompt is held out.

    `raw_file` is the file that holds it, `row` its place there.
    """

    file: FileName
    row: int
    faults: list[Fault]
    content: Row | str
    withheld: bool
    raw_file: str


# kind -> (what should hold, what to do)
_RULES = {
    FaultKind.SCHEMA: (
        "every row fits its schema: a JSON object, all values present and text, known splits, ids that occur "
        "once, the same responses in all rows of a pair",
        "mend what writes the data",
    ),
    FaultKind.EMPTY_OR_OVERLONG: (
        "no text is empty (spaces and invisible characters are nothing) or longer than its limit",
        "mend the rows, or raise the limits in data_validation",
    ),
    FaultKind.DUPLICATE: ("no row repeats an earlier one", "remove the copies at the source"),
    FaultKind.EQUAL_RESPONSES: (
        "the two responses of a comparison differ",
        "drop such pairs before labelling",
    ),
    FaultKind.LOOK_EQUAL: (
        "the two responses of a comparison differ in something that can be seen (not in outer space, Unicode "
        "composition or invisible characters)",
        "drop such pairs before labelling",
    ),
    FaultKind.ENCODING: (
        "no text holds U+FFFD, control characters or UTF-8 read as another encoding",
        "decode the source as what it is, then write UTF-8",
    ),
    FaultKind.LEAKED: (
        "no demonstration or comparison has a validation or test prompt",
        "collect training rows on training prompts only",
    ),
}


def fault_checks(rejected: list[Rejected]) -> list[Check]:
    """How many rows were quarantined, by the kind of fault. A row with several kinds counts in each."""
    rows: dict[FaultKind, list[str]] = defaultdict(list)
    for row in rejected:
        if row.withheld:
            continue
        for kind in {fault.kind for fault in row.faults}:
            faults = ", ".join(str(fault) for fault in row.faults if fault.kind is kind)
            rows[kind].append(f"{row.raw_file} row {row.row}: {faults}")
    return [
        Check(
            name=kind.value,
            status="warning" if rows[kind] else "ok",
            expected=expected,
            found=f"{len(rows[kind])} rows, quarantined" if rows[kind] else "no row",
            value=len(rows[kind]),
            limit=0,
            examples=rows[kind][:SHOWN_EXAMPLES],
            remedy=remedy,
        )
        for kind, (expected, remedy) in _RULES.items()
    ]
