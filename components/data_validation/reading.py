"""Reading raw JSONL without stopping at the first bad line: every line becomes a row or a named fault."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from components.data_validation.faults import Fault, FaultKind

Row = dict[str, Any]

_NOT_UTF8 = Fault("", "the line is not UTF-8", FaultKind.ENCODING)
_NOT_JSON = Fault("", "the line is not JSON", FaultKind.SCHEMA)
CUT_OFF = Fault("", "the file ends within the line: it is cut off, or still being written", FaultKind.SCHEMA)
_NOT_AN_OBJECT = Fault("", "the line is not a JSON object", FaultKind.SCHEMA)
_HALF_SURROGATE = Fault("", "the line has half of a surrogate pair", FaultKind.ENCODING)
PLACE = ("raw_row", "raw_file")  # columns that say where a validated row comes from
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class BadRow:
    """A line that is no row at all, or a row of which no row of ours can be made; `number` as in `RawFile`."""

    number: int
    content: Row | str
    fault: Fault
    file: str


@dataclass(frozen=True)
class Source:
    """A file that was read.

    Args:
        file: its name below data/.
        kind: what holds its rows: JSONL, CSV, ...
        format: what its rows are; see components.data.formats.
        rows: how many it has, bad ones included.
        unused: rows of which none is made though nothing is wrong with them (ties, say), by reason.
    """

    file: str
    kind: str
    format: str
    rows: int
    unused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RawFile:
    """All rows of one role (prompts, demonstrations or comparisons), of one file or of several.

    Args:
        path: of the file, or of the files, with commas.
        rows: with the columns of components.data.rows. Several may come from one row of a file.
        numbers: where each of `rows` is in its file, counted from 1: the line of JSONL, else the row (a CSV's header
            is its row 1).
        files: the file of each of `rows`, as `Source.file` names it.
        derived_from: the role whose rows these were taken from, where no file holds them.
    """

    path: str
    rows: list[Row]
    numbers: list[int]
    files: list[str]
    bad_rows: list[BadRow]
    sources: tuple[Source, ...]
    derived_from: str | None = None

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.bad_rows)


def place_of(role: str, row: Row) -> str:
    """Where a row of the validated data comes from, for people: "mine.csv row 7".

    Such rows carry `raw_row`, and `raw_file` where the file is not named for its role.
    """
    return f"{row.get('raw_file', f'{role}.jsonl')} row {row['raw_row']}"


def read_tolerantly(path: Path) -> RawFile:
    """Read one JSON object a line; lines that are none are returned beside the rows.

    Raises:
        FileNotFoundError: the caller knows which files belong together and reports all that are missing.
    """
    return parse_lines(path.read_bytes(), path.as_posix())


def parse_lines(content: bytes, path: str, name: str = "") -> RawFile:
    """The pure part of `read_tolerantly`; `name` is the file's for people, without it the last part of its path."""
    rows: list[Row] = []
    numbers: list[int] = []
    bad_rows: list[BadRow] = []
    file = name or PurePath(path).name
    for number, raw_line in enumerate(io.BytesIO(content), start=1):
        # Some editors begin a file with the mark; in files that were joined it stands before a later line.
        line = raw_line.removesuffix(b"\n").removeprefix(_BYTE_ORDER_MARK)
        if not line.strip():
            continue
        row = _parse(line)
        if row in (_NOT_JSON, _NOT_UTF8) and not raw_line.endswith(b"\n") and _is_cut_off(line):
            row = CUT_OFF
        if isinstance(row, Fault):
            text = line.decode("utf-8", errors="backslashreplace").rstrip("\r")
            bad_rows.append(BadRow(number, text, row, file))
        else:
            rows.append(row)
            numbers.append(number)
    source = Source(file, "JSONL", "", len(rows) + len(bad_rows))
    return RawFile(path, rows, numbers, [file] * len(rows), bad_rows, (source,))


def _parse(line: bytes) -> Row | Fault:
    """The row of a line, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return _NOT_UTF8
    try:
        row = parse_json(text)
    except (ValueError, RecursionError):  # RecursionError: thousands of open brackets
        return _NOT_JSON
    if not isinstance(row, dict):
        return _NOT_AN_OBJECT
    if "\\u" in text and not writable(row):
        return _HALF_SURROGATE
    return row


def _is_cut_off(line: bytes) -> bool:
    """Whether a line begins as a JSON object does, and lacks its end."""
    try:
        json.loads(line.decode("utf-8", errors="ignore"))  # it may end within a character, too
    except json.JSONDecodeError as fault:
        return line.startswith(b"{") and not fault.msg.startswith("Extra data")
    except RecursionError:
        return False
    return False


def parse_json(text: str) -> Any:
    """Read JSON as the standard has it.

    Raises:
        ValueError: it is none; NaN and numbers beyond all floats are none.
    """
    return _JSON.decode(text)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large")
    return value


_JSON = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)  # json.loads would make one for every line


def writable(row: Row) -> bool:
    """Whether UTF-8 can hold all of a row: not half of a surrogate pair."""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
