"""Reading raw JSONL without stopping at the first bad line: every line becomes a row or a named fault."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data_validation.faults import Fault, FaultKind

Row = dict[str, Any]

_NOT_UTF8 = Fault("", "the line is not UTF-8", FaultKind.ENCODING)
_NOT_JSON = Fault("", "the line is not JSON", FaultKind.SCHEMA)
_NOT_AN_OBJECT = Fault("", "the line is not a JSON object", FaultKind.SCHEMA)
_HALF_SURROGATE = Fault("", "the line has half of a surrogate pair", FaultKind.ENCODING)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        if isinstance(row, Fault):
            text = line.decode("utf-8", errors="backslashreplace").rstrip("\r")
            bad_lines.append(BadLine(number, text, row))
        else:
            rows.append(row)
            numbers.append(number)
    return RawFile(path, rows, numbers, bad_lines)


def _parse(line: bytes) -> Row | Fault:
    """The row of a line, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return _NOT_UTF8
    try:
        row = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):  # RecursionError: thousands of open brackets
        return _NOT_JSON
    if not isinstance(row, dict):
        return _NOT_AN_OBJECT
    if "\\u" in text and not _writable(row):
        return _HALF_SURROGATE
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
