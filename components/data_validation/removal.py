"""A raw file without some of its rows, in the form that it has; what stays is not touched."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from components.data_validation.containers import read_container
from components.data_validation.reading import parse_json
from components.data_validation.tables import separator_of
from components.errors import DataError

_GZIPPED = ", gzipped"


def without_rows(path: Path, name: str, kind: str, numbers: Collection[int]) -> bytes:
    """The content of a file without rows, by their numbers as `RawFile` counts them.

    Args:
        name: of the file below data/; kind: what holds its rows, as `Source.kind` has it.

    Raises:
        DataError: rows of this kind cannot be taken out.
    """
    content = path.read_bytes() if path.is_file() else b""
    if kind.endswith(_GZIPPED):
        plain = _without(gzip.decompress(content), kind.removesuffix(_GZIPPED), name, numbers)
        return gzip.compress(plain, mtime=0)
    return _without(content, kind, name, numbers)


def _without(content: bytes, kind: str, name: str, numbers: Collection[int]) -> bytes:
    gone = set(numbers)
    if kind == "JSONL":
        return b"".join(line for number, line in enumerate(io.BytesIO(content), start=1) if number not in gone)
    if kind == "JSON array":
        kept = [
            row for number, row in enumerate(parse_json(content.decode("utf-8-sig")), start=1) if number not in gone
        ]
        return (json.dumps(kept, ensure_ascii=False, indent=2 if b"\n" in content.strip() else None) + "\n").encode()
    if kind in ("CSV", "TSV"):
        separator = separator_of(content, Path(name.removesuffix(".gz")).suffix.lower()) or ","
        records = _records(content.decode("utf-8"), separator)
        return "".join(text for number, text in enumerate(records, start=1) if number not in gone).encode()
    if kind == "Parquet":
        return _without_in_parquet(content, gone)
    raise DataError(
        "rows cannot be taken out of this file",
        where=name,
        expected="JSONL, a JSON array, CSV or TSV, Parquet, or one of these gzipped",
        found=kind,
        do=f"`proximal data import data/{name}` writes it as JSONL; delete the old one and call this again",
    )


def _records(text: str, separator: str) -> Iterator[str]:
    """The text of each record of a CSV, its line breaks and quotes as they are; empty lines count as one each."""
    lines = list(io.StringIO(text, newline=""))
    reader, start = csv.reader(iter(lines), delimiter=separator), 0
    for _ in reader:
        yield "".join(lines[start : reader.line_num])
        start = reader.line_num


def _without_in_parquet(content: bytes, gone: set[int]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content))
    kept = pa.array([number not in gone for number in range(1, table.num_rows + 1)])
    written = pa.BufferOutputStream()
    pq.write_table(table.filter(kept), written)
    return bytes(written.getvalue().to_pybytes())


def require_all_else(old: Path, new: Path, name: str, numbers: Collection[int]) -> None:
    """See that a new file holds the rows of the old one but those, before it takes its place.

    Raises:
        DataError: it does not.
    """
    (before,), (after,) = read_container(old, name), read_container(new, name)
    kept = [row for row, number in zip(before.rows, before.numbers, strict=True) if number not in set(numbers)]
    if after.rows != kept:
        raise DataError(
            "a file cannot be written again without some of its rows",
            where=name,
            expected=f"{len(kept)} rows that are as they were",
            found=f"{len(after.rows)} rows, or others",
            do="take the rows out by hand, then `dvc add data`",
        )
