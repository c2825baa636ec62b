"""The rows of the clean data: prompts, demonstrations, comparisons. They are read and written here alone.

Columns that a row brings beyond those named here are kept in `extra`, in their order. Optional ones that have no value
are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from components.artifacts import read_jsonl, write_jsonl
from components.errors import DataError


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked. `split` is the one that the raw data names, `kind` what evaluation tells apart."""

    id: str
    prompt: str
    split: str | None = None
    kind: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    required: ClassVar = ("id", "prompt")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response to learn from."""

    id: str
    prompt: str
    response: str
    source: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    required: ClassVar = ("id", "prompt", "response")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two responses to a prompt, and which of them was preferred; by whom, and of which pair, where the data says."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    source: str | None = None
    annotator: str | None = None
    pair: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    required: ClassVar = ("id", "prompt", "chosen", "rejected")


Row = TypeVar("Row", bound=Prompt | Demonstration | Comparison)
_NAMED: dict[type, tuple[str, ...]] = {
    kind: tuple(column.name for column in fields(kind) if column.name != "extra")
    for kind in (Prompt, Demonstration, Comparison)
}


def row_of(kind: type[Row], columns: Mapping[str, Any]) -> Row:
    """A row from its columns. Raises: KeyError, a required one is missing."""
    if missing := [name for name in kind.required if name not in columns]:
        raise KeyError(*missing)
    named = _NAMED[kind]
    values = {name: columns[name] for name in named if name in columns}
    return kind(**values, extra={name: value for name, value in columns.items() if name not in named})


def columns_of(row: Prompt | Demonstration | Comparison) -> dict[str, Any]:
    """A row as it is written."""
    values = {name: getattr(row, name) for name in _NAMED[type(row)]}
    return {name: value for name, value in values.items() if value is not None} | dict(row.extra)


def write_rows(path: Path, rows: Iterable[Prompt | Demonstration | Comparison]) -> None:
    """Write one row a line, whole or not at all."""
    write_jsonl(path, map(columns_of, rows))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """What `write_rows` wrote.

    Raises:
        DataError: the file is absent, a line is not JSON, or a row lacks a column.
    """
    rows = []
    for number, columns in enumerate(read_jsonl(path), start=1):
        try:
            rows.append(row_of(kind, columns))
        except KeyError as missing:
            raise DataError(
                f"a row of clean data is no {kind.__name__.lower()}",
                where=f"{path}, row {number}",
                expected=f"the columns {', '.join(kind.required)}",
                found=f"no {', '.join(missing.args)}",
                do="delete the file and run `dvc repro`, which makes it again",
            ) from missing
    return rows
