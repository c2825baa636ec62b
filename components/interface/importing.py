"""Files in any format into `data/`, as rows of ours: read, mapped and checked as the stage data_validation does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from components.artifacts import write_jsonl
from components.config import Params
from components.data.formats.base import Row
from components.data_validation.containers import data_files, is_datasets_folder, read_container, stem_of
from components.data_validation.gathering import by_role
from components.data_validation.reading import CUT_OFF, RawFile, Source
from components.data_validation.row_checks import check_rows, rows_by_reason
from components.data_validation.schemas import FileName
from components.data_validation.tokens import token_counter
from components.errors import DataError
from components.interface.hub import is_name, read_from_hub

SHOWN_REASONS = 8
_ORDER = ("id", "prompt", "messages", "chosen", "rejected", "response", "source")


@dataclass(frozen=True)
class Imported:
    """One file that was written.

    Args:
        source: what it comes from.
        role: what its rows are.
        path: the new file.
        rows: how many it has.
        faults: rows that the stage will quarantine, or that could not be mapped, by reason.
        known: rows that were left out, because data/ has their content.
    """

    source: Source
    role: FileName
    path: Path
    rows: int
    faults: Mapping[str, list[int]]
    known: int = 0

    def lines(self) -> list[str]:
        """What there is to say of it."""
        told = [
            f"{self.source.file}: {self.rows:,} {self.role} ({self.source.format}; {self.source.kind}) -> {self.path}"
        ]
        if self.known:
            told.append(f"  {self.known:,} more are in data/ already")
        told += [f"  {count:,} rows are not used: {reason}" for reason, count in self.source.unused.items()]
        for reason, numbers in list(self.faults.items())[:SHOWN_REASONS]:
            named = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
            told.append(f"  {len(numbers):,} faulty: {reason} (row{'s' if len(numbers) > 1 else ''} {named})")
        if len(self.faults) > SHOWN_REASONS:
            told.append(f"  and {len(self.faults) - SHOWN_REASONS} more reasons")
        return told

    def plain(self) -> dict[str, Any]:
        """The same for scripts."""
        return {
            "source": self.source.file,
            "kind": self.source.kind,
            "format": self.source.format,
            "role": self.role,
            "path": str(self.path),
            "rows": self.rows,
            "known": self.known,
            "unused": dict(self.source.unused),
            "faults": {reason: len(numbers) for reason, numbers in self.faults.items()},
        }


def import_data(
    sources: Sequence[str],
    folder: Path,
    params: Params,
    columns: Mapping[str, str],
    revision: str | None,
    splits: Sequence[str],
    replace: bool,
) -> list[Imported]:
    """Write one file of `folder` for each file that is read, once all have been read and checked.

    Args:
        sources: files, folders, or names of data sets of the hub.
        columns: our names of columns to theirs.
        revision, splits: of the data sets of the hub.
        replace: whether files of these names may be there.

    Raises:
        ConfigError, DataError: what data_validation would refuse, no such file, or a file is there.
    """
    raws = read_sources(sources, revision, splits)
    targets = _targets(raws, folder, replace)
    imported = []
    for role, source, rows, faults in checked(raws, params, columns):
        write_jsonl(targets[source.file], rows)
        imported.append(Imported(source, role, targets[source.file], len(rows), faults))
    return imported


def read_sources(sources: Sequence[str], revision: str | None, splits: Sequence[str]) -> list[RawFile]:
    """The rows of files, folders and data sets of the hub as they are.

    Raises:
        DataError: no such file, or none that can be read.
    """
    return [raw for source in sources for raw in _read(source, revision, splits)]


class CheckedFile(NamedTuple):
    """The rows of one file as rows of ours, and what is wrong with some of them, by reason."""

    role: FileName
    source: Source
    rows: list[Row]
    faults: Mapping[str, list[int]]


def checked(raws: Sequence[RawFile], params: Params, columns: Mapping[str, str]) -> Iterator[CheckedFile]:
    """Each file mapped and checked as the stage data_validation does; all are checked before the first is given.

    Raises:
        ConfigError, DataError: what that stage would refuse.
    """
    found = {role: raw for role, raw in by_role(raws, columns).items() if raw.derived_from is None}
    _, rejected = check_rows(found, params.data_validation, token_counter(params.language_model))
    for role, raw in found.items():
        for source in raw.sources:
            rows = [_ordered(row) for row, file in zip(raw.rows, raw.files, strict=True) if file == source.file]
            faults = rows_by_reason([row for row in rejected if row.file == role and row.raw_file == source.file])
            yield CheckedFile(role, source, rows, faults)


def others_in(folder: Path, imported: Collection[Imported]) -> list[str]:
    """Files that the stage will read beside those that were imported."""
    new = {each.path.resolve() for each in imported}
    return [path.relative_to(folder).as_posix() for path in data_files(folder) if path.resolve() not in new]


def _read(source: str, revision: str | None, splits: Sequence[str]) -> list[RawFile]:
    path = Path(source)
    if not path.exists():
        if is_name(source):
            return read_from_hub(source, revision, splits)
        raise DataError(
            "there is no such file",
            where=source,
            expected="a file, a folder, or OWNER/NAME of a data set of the hub",
            found="nothing",
        )
    if revision or splits:
        raise DataError(
            "only data sets of the hub have a revision and splits to choose",
            where=source,
            expected="OWNER/NAME",
            found="a file here" if path.is_file() else "a folder here",
            do="leave --revision and --split out",
        )
    if path.is_file() or is_datasets_folder(path):
        return list(map(_whole_lines, read_container(path, path.name)))
    return [
        _whole_lines(raw)
        for file in data_files(path)
        for raw in read_container(file, file.relative_to(path).as_posix())
    ]


def _whole_lines(raw: RawFile) -> RawFile:
    """Without a last line that is not whole: a file of labels grows while it is read, and that line is not faulty."""
    others = [bad for bad in raw.bad_rows if bad.fault is not CUT_OFF]
    if others == raw.bad_rows:
        return raw
    (source,) = raw.sources
    told = replace(source, rows=source.rows - 1, unused={CUT_OFF.message: 1})
    return replace(raw, bad_rows=others, sources=(told,))


def _targets(raws: Sequence[RawFile], folder: Path, replace: bool) -> dict[str, Path]:
    """Where the rows of each file go: `<stem>.jsonl`."""
    targets: dict[str, Path] = {}
    for raw in raws:
        file = raw.sources[0].file
        target = folder / f"{stem_of(file.replace('/', '-'))}.jsonl"
        if file in targets or target in targets.values() or (target.exists() and not replace):
            raise DataError(
                "two files have one name" if target in targets.values() else "a file of this name is there",
                where=str(target),
                expected="a name for each file" if target in targets.values() else "a new file, or --replace",
                found=raw.path,
                do="rename one of them, or import it with --replace in place of the old one",
            )
        targets[file] = target
    return targets


def _ordered(row: Row) -> Row:
    """Columns as `components.data.rows` writes them: named ones first, none without a value."""
    named = {name: row[name] for name in _ORDER if row.get(name) is not None}
    return named | {name: value for name, value in row.items() if name not in _ORDER}
