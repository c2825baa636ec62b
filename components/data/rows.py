"""The rows of the clean data: prompts, demonstrations, comparisons. They are read and written here alone.

A prompt is a text, which people read. Where it is a conversation of several turns, or has a system prompt, `messages`
hold it as it was, the last one the user's, and `prompt` is its transcript; a response is the assistant's next turn.

Columns that a row brings beyond those named here are kept in `extra`, in their order. Optional ones that have no value
are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict, TypeVar

from components.artifacts import read_jsonl, write_jsonl
from components.errors import DataError

# What a comparison's source begins with where no human told the responses apart but the reward model of a run.
BY_REWARD_MODEL = "online/"


class Message(TypedDict):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Asked = str | list[Message]  # what a policy is asked: a text, which is one turn of the user's, or a conversation


class _Row:
    """What all rows have."""

    __slots__ = ()
    prompt: str
    messages: list[Message] | None

    @property
    def asked(self) -> Asked:
        """The prompt as models read it."""
        return self.prompt if self.messages is None else self.messages


@dataclass(frozen=True, slots=True)
class Prompt(_Row):
    """What is asked. `split` is the one that the raw data names, `kind` what evaluation tells apart."""

    id: str
    prompt: str
    messages: list[Message] | None = None
    split: str | None = None
    kind: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    required: ClassVar = ("id", "prompt")


@dataclass(frozen=True, slots=True)
class Demonstration(_Row):
    """A prompt and a response to learn from."""

    id: str
    prompt: str
    response: str
    messages: list[Message] | None = None
    source: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    required: ClassVar = ("id", "prompt", "response")


@dataclass(frozen=True, slots=True)
class Comparison(_Row):
    """Two responses to a prompt, and which of them was preferred; by whom, and of which pair, where the data says."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    messages: list[Message] | None = None
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
