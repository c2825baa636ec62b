"""All raw files of a folder: each in the format that it has, its rows made rows of ours, those of one role together."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from components.data.formats.detect import format_of
from components.data.formats.mapping import map_rows
from components.data_validation.containers import data_files, read_container, stem_of
from components.data_validation.derived_prompts import prompts_from
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.identity import identify, tell_apart
from components.data_validation.links import refuse_links
from components.data_validation.reading import BadRow, RawFile, Row
from components.data_validation.schemas import FILES, FileName
from components.errors import ConfigError, DataError


def require_raw_files(folder: Path) -> None:
    """
    Raises:
        DataError: the folder holds no raw file, or links.
    """
    refuse_links(folder)
    if not folder.is_dir() or not any(data_files(folder)):
        raise DataError(
            "raw data is missing",
            where=folder.as_posix(),
            expected="one or more files of prompts, demonstrations or comparisons",
            found="no such file" if folder.is_dir() else "no such folder",
            do="`dvc pull data.dvc` brings the shipped data; for your own, put the files there, or "
            "`proximal data import FILE`",
        )


def read_raw_files(folder: Path, columns: Mapping[str, str]) -> dict[FileName, RawFile]:
    """Read the raw files of a folder, by the role of their rows; a role that no file has is absent.

    Prompts that no file has are those of the comparisons, or else of the demonstrations.

    Args:
        columns: `data.columns` of the params.

    Raises:
        ConfigError: the column map names nothing in any file.
        DataError: there is no file, or one is empty, cannot be read, fits no format or mixes several.
    """
    require_raw_files(folder)
    gc.disable()  # rows are no garbage, and looking through a million of them again and again takes half of the time
    try:
        files = [(path, path.relative_to(folder).as_posix()) for path in data_files(folder)]
        return by_role([raw for path, name in files for raw in read_container(path, name)], columns)
    finally:
        gc.freeze()
        gc.enable()


def by_role(raws: Iterable[RawFile], columns: Mapping[str, str]) -> dict[FileName, RawFile]:
    """The pure part of `read_raw_files`: from rows as they are to rows of ours."""
    raws = list(raws)
    _refuse_without_rows(raws)
    renamed = _renamed(raws, columns)
    del raws
    mapped: dict[FileName, list[RawFile]] = {}
    while renamed:
        role, raw = _mapped(renamed.pop(0))  # the rows as they were may go
        mapped.setdefault(role, []).append(raw)
    roles = {role: _joined(mapped[role]) for role in FILES if role in mapped}
    if "prompts" not in roles:
        source: FileName = "comparisons" if "comparisons" in roles else "demonstrations"
        roles = {"prompts": prompts_from(roles[source], source), **roles}
    return roles


def _refuse_without_rows(raws: list[RawFile]) -> None:
    if broken := [raw for raw in raws if not raw.rows]:
        raise DataError(
            "the raw data lacks what every file must have",
            where="; ".join(raw.path for raw in broken),
            expected="; ".join("one JSON object a line" if raw.bad_rows else "at least one row" for raw in broken),
            found="; ".join(
                f"{len(raw.bad_rows)} lines, none of them a row; line {raw.bad_rows[0].number}: {raw.bad_rows[0].fault}"
                if raw.bad_rows
                else "an empty file"
                for raw in broken
            ),
            do="mend what writes these files, or take them out of the folder",
        )


def _renamed(raws: list[RawFile], columns: Mapping[str, str]) -> list[RawFile]:
    """Rows with our names where the map says which column is which.

    Raises:
        ConfigError: an entry names no column of any file, or a file has a column of our name already.
    """
    if not columns:
        return raws
    seen: set[str] = set()
    renamed = []
    for raw in raws:
        there = set().union(*{frozenset(row) for row in raw.rows})
        seen |= there
        ours = {theirs: name for name, theirs in columns.items() if theirs in there and theirs != name}
        for theirs, name in ours.items():
            if name in there and name not in ours:
                raise ConfigError(
                    "a column map names a column that is there twice",
                    where=f"data.columns.{name}: {theirs}",
                    expected=f"files that have {theirs} and no {name} beside it",
                    found=f"both in {raw.path}",
                    do=f"rename one of them in the file, or leave {name} out of data.columns",
                )
        rows = [{ours.get(name, name): value for name, value in row.items()} for row in raw.rows] if ours else raw.rows
        renamed.append(replace(raw, rows=rows))
    if nothing := {name: theirs for name, theirs in columns.items() if theirs not in seen}:
        raise ConfigError(
            "a column map names nothing",
            where=", ".join(f"data.columns.{name}" for name in nothing),
            expected=f"columns of the files: {', '.join(sorted(map(str, seen)))}",
            found=", ".join(nothing.values()),
            do="name a column that is there, or leave the entry out",
        )
    return renamed


def _mapped(raw: RawFile) -> tuple[FileName, RawFile]:
    (source,) = raw.sources
    stem = stem_of(source.file)
    fitting = format_of(raw.rows, raw.numbers, raw.path, stem)
    mapped = map_rows(raw.rows, raw.numbers, fitting)
    bad = [
        BadRow(number, row, Fault(fault.column, fault.message, FaultKind.SCHEMA), source.file)
        for number, row, fault in mapped.unmapped
    ]
    if not mapped.rows:
        why = [f"{count} rows: {reason}" for reason, count in mapped.unused.items()]
        why += [f"{len(bad)} rows cannot be mapped; row {bad[0].number}: {bad[0].fault}"] if bad else []
        raise DataError(
            "a raw file has no usable row",
            where=raw.path,
            expected=f"rows of the format {fitting.name} ({fitting.needs})",
            found="; ".join(why),
            do="mend what writes it, or take it out of the folder",
        )
    identify(mapped.rows, fitting.role, stem)
    return fitting.role, RawFile(
        path=raw.path,
        rows=mapped.rows,
        numbers=mapped.numbers,
        files=[source.file] * len(mapped.rows),
        bad_rows=sorted([*raw.bad_rows, *bad], key=lambda row: row.number),
        sources=(replace(source, format=fitting.name, unused={**source.unused, **mapped.unused}),),
    )


def _joined(raws: list[RawFile]) -> RawFile:
    if len(raws) == 1:
        return raws[0]
    tell_apart((raw.sources[0].file, raw.rows) for raw in raws)
    rows: list[Row] = []
    numbers: list[int] = []
    files: list[str] = []
    bad: list[BadRow] = []
    for raw in raws:
        rows += raw.rows
        numbers += raw.numbers
        files += raw.files
        bad += raw.bad_rows
    path = ", ".join(raw.path for raw in raws)
    return RawFile(path, rows, numbers, files, bad, tuple(source for raw in raws for source in raw.sources))
