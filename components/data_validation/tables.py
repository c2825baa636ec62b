"""Rows of tables: CSV, Parquet, and Arrow's in memory.

Cells without a value are not there; a CSV's are texts, but for lists and messages that are written out in them.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data_validation.faults import Fault, FaultKind
from components.data_validation.reading import Row
from components.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_LISTS = ("responses", "answers", "completions", "ranks", "rankings", "ranking", "scores", "ratings")
_PLAIN_TYPES = ("string", "large_string", "string_view", "bool")
_PANDAS_INDEX = "__index_level_"
_KNOWN_COLUMNS = {"prompt", "chosen", "rejected", "response", "completion", "instruction", "messages"}
_LONGEST_CELL = 2**31 - 1
Numbered = tuple[list[Row], list[int]]


def separator_of(content: bytes, suffix: str) -> str | None:
    """What parts the cells of a CSV; None of what is no CSV.

    A file is one by its name, or by a first line that names a column of ours.
    """
    header = content[:10_000].removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", errors="replace")
    separators = sorted("\t;,", key=header.count)
    if suffix in (".csv", ".tsv"):
        return separators[-1] if header.count(separators[-1]) else ","
    named = {cell.strip().strip('"') for cell in header.split(separators[-1])}
    return separators[-1] if len(named) > 1 and named & _KNOWN_COLUMNS else None


def parse_csv(content: bytes, path: Path, separator: str) -> tuple[list[Row], list[int], list[tuple[int, str, Fault]]]:
    """Rows, their numbers (the header is row 1, as in a spreadsheet), and rows of too many or too few cells.

    Raises:
        DataError: it is not UTF-8, or its header cannot be one.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise unreadable(
            path,
            "UTF-8",
            f"byte {content[fault.start]:#04x} at offset {fault.start}",
            "save it as UTF-8 (Excel: CSV UTF-8)",
        ) from fault
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[Row] = []
    numbers: list[int] = []
    bad: list[tuple[int, str, Fault]] = []
    header: list[str] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if not header:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header) or not all(header):
                    raise unreadable(
                        path, "a header that names each column once", repr(cells)[:200], "mend its first row"
                    )
            elif not cells:
                continue
            elif len(cells) != len(header):
                message = f"the row has {len(cells)} cells, the header {len(header)}"
                bad.append((number, separator.join(cells), Fault("", message, FaultKind.SCHEMA)))
            else:
                named = zip(header, cells, strict=True)
                rows.append({name: _cell(name, cell) for name, cell in named if cell != ""})
                numbers.append(number)
    except csv.Error as fault:
        raise unreadable(path, "CSV", f"line {reader.line_num}: {fault}", "mend what writes it") from fault
    return rows, numbers, bad


def _cell(column: str, cell: str) -> object:
    """A cell's text; messages in any column, and lists of answers and their marks, as what they are."""
    if not cell.startswith(("[", "{")) or not cell.rstrip().endswith(("]", "}")):
        return cell
    if column not in _LISTS and not cell.startswith(("[{", "{")):
        return cell
    for read in (json.loads, ast.literal_eval):  # pandas writes a list as Python does
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        messages = value if isinstance(value, list) else [value]
        if column in _LISTS or all(isinstance(turn, dict) and {"role", "from"} & set(turn) for turn in messages):
            return value
    return cell


def parse_parquet(content: bytes, path: Path) -> Numbered:
    """Rows and their numbers, from 1.

    Raises:
        DataError: it is no whole Parquet file, or a column holds what no JSON can.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as fault:
        raise unreadable(path, "a whole Parquet file", " ".join(str(fault).split())[:200], "bring it anew") from fault
    return rows_of_table(table, path)


def rows_of_table(table: pa.Table, path: Path) -> Numbered:
    """The rows of an Arrow table and their numbers, from 1.

    Raises:
        DataError: a column holds what no JSON can.
    """
    import pyarrow as pa

    table = table.drop_columns([name for name in table.column_names if name.startswith(_PANDAS_INDEX)])
    to_clean = []
    for column in table.schema:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise unreadable(path, "texts, numbers and lists of them", f"bytes in column {column.name}", "leave it out")
        if str(column.type) not in _PLAIN_TYPES and not pa.types.is_integer(column.type):
            to_clean.append(column.name)
    rows: list[Row] = []
    for batch in table.to_batches():
        for row in batch.to_pylist():
            for name in to_clean:
                row[name] = _plain(row[name])
            rows.append({name: value for name, value in row.items() if value is not None})
    return rows, list(range(1, len(rows) + 1))


def _plain(value: Any) -> Any:
    """A value as JSON has it: not-a-number is none, a point in time is its ISO text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def unreadable(path: Path, expected: str, found: str, do: str) -> DataError:
    """A raw file as a whole cannot be read."""
    return DataError("a raw file cannot be read", where=str(path), expected=expected, found=found, do=do)
