"""Reading raw JSONL without stopping at the first bad line: every line becomes a row or a named fault."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]

NOT_UTF8 = "the line is not UTF-8"
NOT_JSON = "the line is not JSON"
NOT_AN_OBJECT = "the line is not a JSON object"
HALF_SURROGATE = "the line has half of a surrogate pair"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Fault(NamedTuple):
    """Why a row is rejected: the column to blame, or "" where it is the whole row, and what is wrong."""

    column: str
    message: str

    def __str__(self) -> str:
        return f"{self.column} {self.message}" if self.column else self.message


@dataclass(frozen=True)
class BadLine:
    """A line that is no row at all."""

    number: int
    text: str
    fault: Fault


@dataclass(frozen=True)
class RawFile:
    """What a raw file holds. `numbers` are the 1-based lines of `rows`; blank lines are counted, not kept."""

    path: str
    rows: list[Row]
    numbers: list[int]
    bad_lines: list[BadLine]

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.bad_lines)


def read_tolerantly(path: Path) -> RawFile:
    """Read one JSON object a line; lines that are none are returned beside the rows.

    Raises:
        FileNotFoundError: the caller knows which files belong together and reports all that are missing.
    """
    return parse_lines(path.read_bytes(), path.as_posix())


def parse_lines(content: bytes, path: str) -> RawFile:
    """The pure part of `read_tolerantly`."""
    rows: list[Row] = []
    numbers: list[int] = []
    bad_lines: list[BadLine] = []
    for number, raw_line in enumerate(content.split(b"\n"), start=1):
        # Some editors begin a file with the mark; in files that were joined it stands before a later line.
        line = raw_line.removeprefix(_BYTE_ORDER_MARK)
        if not line.strip():
            continue
        row = _parse(line)
        if isinstance(row, str):
            text = line.decode("utf-8", errors="backslashreplace").rstrip("\r")
            bad_lines.append(BadLine(number, text, Fault("", row)))
        else:
            rows.append(row)
            numbers.append(number)
    return RawFile(path, rows, numbers, bad_lines)


def _parse(line: bytes) -> Row | str:
    """The row of a line, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_UTF8
    try:
        row = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):  # RecursionError: thousands of open brackets
        return NOT_JSON
    if not isinstance(row, dict):
        return NOT_AN_OBJECT
    if "\\u" in text and not _writable(row):
        return HALF_SURROGATE
    return row


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large")
    return value


def _writable(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
