"""Rows are taken out of a file of any kind, and what stays is byte for byte, or value for value, as it was."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data_validation.containers import read_container
from components.data_validation.removal import require_all_else, without_rows
from components.errors import DataError


def taken_out(tmp_path: Path, name: str, content: bytes, numbers: Sequence[int]) -> bytes:
    path = tmp_path / name
    path.write_bytes(content)
    (raw,) = read_container(path, name)
    new = without_rows(path, name, raw.sources[0].kind, numbers)
    written = tmp_path / f"new-{name}"
    written.write_bytes(new)
    require_all_else(path, written, name, numbers)
    return new


def test_lines_stay_byte_for_byte_bad_ones_and_empty_ones_too(tmp_path: Path) -> None:
    lines = [b'{"id": 1,  "prompt":"a"}\r\n', b"\n", b"no row\n", b'{"prompt": "\\u00e4", "id": 2}\n', b'{"id": 3}']
    assert taken_out(tmp_path, "a.jsonl", b"".join(lines), [4]) == b"".join([*lines[:3], lines[4]])
    assert taken_out(tmp_path, "a.jsonl", b"".join(lines), [3]) == b"".join([*lines[:2], *lines[3:]])


def test_records_of_a_csv_stay_with_their_quotes_and_line_breaks(tmp_path: Path) -> None:
    header, first, second, third = (
        b'\xef\xbb\xbfprompt;chosen;rejected\r\n', b'"two\r\nlines";a;b\r\n', b"x;c;d\r\n", b'"said ""so""";e;f\r\n'
    )  # fmt: skip
    whole = header + first + second + third
    assert taken_out(tmp_path, "a.csv", whole, [2]) == header + second + third
    assert taken_out(tmp_path, "a.csv", whole, [3]) == header + first + third


def test_arrays_tables_and_what_is_zipped(tmp_path: Path) -> None:
    rows = [{"prompt": f"ä{number}", "response": "b"} for number in range(3)]
    assert json.loads(taken_out(tmp_path, "a.json", json.dumps(rows, indent=1).encode(), [2])) == [rows[0], rows[2]]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    out = taken_out(tmp_path, "a.parquet", path.read_bytes(), [1, 3])
    assert pq.read_table(pa.BufferReader(out)).to_pylist() == [rows[1]]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    zipped = taken_out(tmp_path, "a.jsonl.gz", gzip.compress(lines), [1])
    assert gzip.decompress(zipped) == b"".join(lines.splitlines(keepends=True)[1:])


def test_what_cannot_be_written_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows cannot be taken out of this file"):
        without_rows(tmp_path, "saved", "datasets folder", [1])
    old, new = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    old.write_text('{"id": 1}\n{"id": 2}\n')
    new.write_text('{"id": 1}\n')
    with pytest.raises(DataError, match="cannot be written again"):
        require_all_else(old, new, "a.jsonl", [1])
