"""What holds the rows of a raw file, told by its content and not by its name: JSONL, a JSON array, CSV, Parquet, gzip.

A `datasets` folder (`save_to_disk`) is read as one file a split.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from components.data_validation.dataset_splits import read_datasets_folder
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.reading import BadRow, RawFile, Row, Source, parse_json, parse_lines, writable
from components.data_validation.tables import parse_csv, parse_parquet, separator_of, unreadable

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_KINDS = "JSONL, a JSON array, CSV or TSV, Parquet, one of these gzipped, or a folder of datasets' save_to_disk"
_DATASETS_FOLDER = ("dataset_dict.json", "state.json")
_NO_DATA = ("README", "LICENSE", "LICENCE", "NOTICE")  # documents that lie beside data


def data_files(folder: Path) -> Iterator[Path]:
    """All files and `datasets` folders of raw data in a folder, all the way down, in order of their names.

    Hidden files, Markdown, README and licences are none.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path.is_file() and _is_document(path)):
            continue
        if path.is_dir() and not is_datasets_folder(path):
            yield from data_files(path)
        else:
            yield path


def _is_document(path: Path) -> bool:
    return path.suffix == ".md" or path.stem.upper() in _NO_DATA


def is_datasets_folder(path: Path) -> bool:
    """Whether the library `datasets` has saved this folder."""
    return any((path / name).is_file() for name in _DATASETS_FOLDER)


def stem_of(name: str) -> str:
    """A file's name without what says how it is written: "hh" of "hh.jsonl.gz"."""
    return PurePath(name.removesuffix(".gz")).stem


def read_container(path: Path, name: str) -> list[RawFile]:
    """The rows of a file as they are, with their numbers; of a `datasets` folder, those of each split.

    Args:
        name: of the file, for people.

    Raises:
        DataError: it is none of these, or as a whole cannot be read.
    """
    if path.is_dir():
        return read_datasets_folder(path, name)
    content = path.read_bytes()
    zipped = content.startswith(_GZIP)
    if zipped:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as fault:
            found = f"one that is cut off or damaged ({fault})"
            raise unreadable(path, "a whole gzip file", found, "bring it anew") from fault
    raw = _parsed(content, path, name)
    if not zipped:
        return [raw]
    (source,) = raw.sources
    return [replace(raw, sources=(replace(source, kind=f"{source.kind}, gzipped"),))]


def _parsed(content: bytes, path: Path, name: str) -> RawFile:
    if content.startswith(_PARQUET):
        return _raw(path, name, *parse_parquet(content, path), [], "Parquet")
    start = content[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()
    suffix = PurePath(name.removesuffix(".gz")).suffix.lower()
    if start.startswith(b"[") and (rows := _array(content, path, suffix == ".json")) is not None:
        return _array_rows(path, name, rows, b"\\u" in content)
    separator = separator_of(content, suffix)
    if separator is not None:
        rows, numbers, bad = parse_csv(content, path, separator)
        return _raw(
            path, name, rows, numbers, [BadRow(*each, name) for each in bad], "TSV" if separator == "\t" else "CSV"
        )
    if b"\x00" in content[:1000]:
        raise unreadable(path, _KINDS, "a binary file of another kind", "convert it, or take it out of the folder")
    raw = parse_lines(content, path.as_posix(), name)
    if not raw.rows and raw.bad_rows and suffix == ".json" and start.startswith(b"{"):
        raise unreadable(
            path, "a JSON array of rows, or one JSON object a line", "one JSON object", "write its rows as an array"
        )
    return raw


def _array(content: bytes, path: Path, surely: bool) -> list[Any] | None:
    """A JSON array; None where it is none, but a file of lines whose first is no row."""
    try:
        rows = parse_json(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        if surely or len(content.split(b"\n", 2)) < 2:
            found = f"JSON that does not parse: {fault}"
            raise unreadable(path, "a JSON array of rows", found, "mend what writes it") from fault
        return None
    return rows if isinstance(rows, list) else None


def _array_rows(path: Path, name: str, elements: list[Any], escapes: bool) -> RawFile:
    rows: list[Row] = []
    numbers: list[int] = []
    bad: list[BadRow] = []
    for number, element in enumerate(elements, start=1):
        if not isinstance(element, dict):
            fault = Fault("", "the row is not a JSON object", FaultKind.SCHEMA)
            bad.append(BadRow(number, json.dumps(element), fault, name))
        elif escapes and not writable(element):
            fault = Fault("", "the row has half of a surrogate pair", FaultKind.ENCODING)
            bad.append(BadRow(number, json.dumps(element), fault, name))
        else:
            rows.append(element)
            numbers.append(number)
    return _raw(path, name, rows, numbers, bad, "JSON array")


def _raw(path: Path, name: str, rows: list[Row], numbers: list[int], bad: list[BadRow], kind: str) -> RawFile:
    source = Source(name, kind, "", len(rows) + len(bad))
    return RawFile(path.as_posix(), rows, numbers, [name] * len(rows), bad, (source,))
