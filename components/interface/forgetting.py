"""Rows of one annotator, or by id: found in the data, taken out, and traced to the models that saw them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data_validation.containers import data_files, read_container
from components.data_validation.gathering import by_role
from components.data_validation.reading import RawFile
from components.data_validation.removal import require_all_else, without_rows
from components.errors import ConfigError, DataError
from components.tracking.lineage import content_of, trace_version
from components.tracking.registry import ModelVersion, all_versions


@dataclass(frozen=True)
class Found:
    """Rows of one file that are to be forgotten.

    Args:
        file: its name below data/.
        kind: what holds its rows.
        numbers: of the rows, as the file counts them.
        rows: how many it has in all.
        by_name: how many rows each of the names has in it.
    """

    file: str
    kind: str
    numbers: tuple[int, ...]
    rows: int
    by_name: Mapping[str, int]


@dataclass(frozen=True)
class Saw:
    """What a registered version was made from.

    Args:
        rows: of the names, in the raw files that it goes back to; 0 where it saw none.
        unknown: raw files that are not here, so that nobody can tell.
    """

    version: ModelVersion
    rows: int
    unknown: tuple[str, ...]

    def line(self) -> str:
        """For people."""
        who = f"{self.version.name} version {self.version.number}" + "".join(f" @{a}" for a in self.version.aliases)
        if self.unknown:
            return f"{who}: {self.rows:,} rows for sure; unknown in {', '.join(self.unknown)}"
        return f"{who}: {self.rows:,} rows"


def find_rows(names: Collection[str], folder: Path, columns: Mapping[str, str]) -> list[Found]:
    """The rows of data/ whose annotator or id is one of the names; files without one are left out.

    Ids are as the pipeline has them: those of rows without one come from their content (the report on the data and the
    clean rows show them).

    Raises:
        ConfigError, DataError: the raw data cannot be read.
    """
    return _found(names, [(path, path.relative_to(folder).as_posix()) for path in data_files(folder)], columns)


def rewrite(found: Sequence[Found], folder: Path) -> None:
    """Write the files without these rows; a file of which no row stays is deleted. All of them, or none.

    Raises:
        DataError: a file cannot be written again.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for each in found:
            path = folder / each.file
            if len(each.numbers) == each.rows:
                continue
            scratch = path.with_name(f".{path.name}.partial")
            written.append((scratch, path))
            scratch.write_bytes(without_rows(path, each.file, each.kind, each.numbers))
            require_all_else(path, scratch, each.file, each.numbers)
        for scratch, path in written:
            os.replace(scratch, path)
        for each in found:
            if len(each.numbers) == each.rows:
                (folder / each.file).unlink()
    finally:
        for scratch, _ in written:
            scratch.unlink(missing_ok=True)


def require_known(names: Iterable[str], found: Sequence[Found], saw: Sequence[Saw]) -> None:
    """Refuse a name that no row has, here or in what a model saw: it is a slip of the pen.

    Raises:
        ConfigError: there is one.
    """
    known = {name for each in found for name, count in each.by_name.items() if count}
    if (strange := [name for name in names if name not in known]) and not any(each.rows for each in saw):
        raise ConfigError(
            "no row has this annotator or id",
            where=", ".join(strange),
            expected="an annotator, or the id of a row, as the report on the data shows them",
            found="neither in data/ nor in what a registered version was made from",
        )


def who_saw(names: Collection[str], root: Path, columns: Mapping[str, str]) -> list[Saw]:
    """Every registered version of every model that goes back to such rows, or of which nobody can tell.

    The raw files of old versions of the data are read from data/ or DVC's cache, by the digests of the lineage.
    """
    counts: dict[tuple[str, str], int | None] = {}
    saw = []
    for version in all_versions():
        steps = trace_version(version, root).root.all_steps()
        files = {(file.path, file.md5) for step in steps for file in step.raw_files}
        rows, unknown = 0, []
        for path, md5 in sorted(files):
            if (path, md5) not in counts:
                counts[path, md5] = _rows_in(content_of(path, md5, root), Path(path).name, names, columns)
            count = counts[path, md5]
            if count is None:
                unknown.append(f"{path} (md5 {md5})")
            rows += count or 0
        if not files:
            unknown.append("all: its lineage does not reach data/")
        if rows or unknown:
            saw.append(Saw(version, rows, tuple(unknown)))
    return saw


def _rows_in(content: Path | None, name: str, names: Collection[str], columns: Mapping[str, str]) -> int | None:
    """How many rows of a raw file are of these names; None where it is not here, or does not read any more."""
    if content is None:
        return None
    try:
        return sum(len(each.numbers) for each in _found(names, [(content, name)], columns))
    except DataError:
        return None


def _found(names: Collection[str], files: Sequence[tuple[Path, str]], columns: Mapping[str, str]) -> list[Found]:
    raws = [raw for path, name in files for raw in read_container(path, name)]
    sources = {raw.sources[0].file: raw.sources[0] for raw in raws}
    there = {column for raw in raws for row in raw.rows for column in row}
    ours = {name: theirs for name, theirs in columns.items() if theirs in there}
    hits: dict[str, dict[int, set[str]]] = {}
    for raw in by_role(raws, ours).values():
        if raw.derived_from is None:
            for file, number, named in _named(raw, set(names), ours):
                hits.setdefault(file, {}).setdefault(number, set()).update(named)
    return [
        Found(
            file,
            sources[file].kind,
            tuple(sorted(numbers)),
            sources[file].rows,
            {name: sum(name in named for named in numbers.values()) for name in names},
        )
        for file, numbers in hits.items()
    ]


def _named(raw: RawFile, names: set[str], columns: Mapping[str, str]) -> Iterable[tuple[str, int, set[str]]]:
    """File, number and names of each row that has one, rows that are none of ours included."""
    for row, number, file in zip(raw.rows, raw.numbers, raw.files, strict=True):
        if named := names & _identities(row, {}):
            yield file, number, named
    for bad in raw.bad_rows:
        if isinstance(bad.content, dict) and (named := names & _identities(bad.content, columns)):
            yield bad.file, bad.number, named


def _identities(row: Mapping[str, Any], columns: Mapping[str, str]) -> set[str]:
    return {str(row[key]) for name in ("id", "annotator") for key in {name, columns.get(name, name)} if key in row}
