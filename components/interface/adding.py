"""Rows that come in after others: only those that data/ has not, into a file of their own or to the end of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.artifacts import atomic_write_parts
from components.config import Params
from components.data.formats.base import Row
from components.data.formats.demonstrations import DEMONSTRATIONS
from components.data.formats.preferences import PREFERENCES
from components.data.formats.prompts import PROMPTS
from components.data_validation.containers import stem_of
from components.data_validation.gathering import read_raw_files
from components.data_validation.reading import RawFile
from components.data_validation.schemas import FileName
from components.errors import ConfigError, DataError
from components.interface.importing import CheckedFile, Imported, checked, read_sources

# The format of what is written.
_OWN = {"prompts": PROMPTS.name, "demonstrations": DEMONSTRATIONS.name, "comparisons": PREFERENCES.name}
_NOT_CONTENT = ("id", "source")  # made up where a row brings none


def add_data(
    sources: Sequence[str],
    folder: Path,
    params: Params,
    columns: Mapping[str, str],
    revision: str | None,
    splits: Sequence[str],
    to: str | None,
) -> list[Imported]:
    """Write the rows that `folder` has not in any of its files, once all have been read and checked.

    Two rows are the same where all but their ids and sources is: another annotator's label is another row.

    Args:
        sources, params, columns, revision, splits: as of `import_data`.
        to: the file of `folder` that all go to; without it each file's rows go to the one of its own name. Rows are
            put to its end where it is there.

    Raises:
        ConfigError, DataError: as `import_data`, or rows do not fit the file that they go to.
    """
    if to is not None and (Path(to).name != to or not to.endswith(".jsonl")):
        raise ConfigError("this is no file of data/", where=f"--to {to}", expected="NAME.jsonl", found="another")
    raws = read_sources(sources, revision, splits)
    read = read_raw_files(folder, params.data.columns)
    there = {role: raw for role, raw in read.items() if raw.derived_from is None}
    known = {_content(role, row) for role, raw in there.items() for row in raw.rows}
    to_write: dict[Path, list[str]] = {}
    imported: list[Imported] = []
    for file in checked(raws, params, columns):
        target = folder / (to or f"{stem_of(file.source.file.replace('/', '-'))}.jsonl")
        fresh = []
        for row in file.rows:
            content = _content(file.role, row)
            if content not in known:
                known.add(content)
                fresh.append(row)
        if to is not None and any(other.role != file.role for other in imported):
            kinds = f"{imported[0].role} and {file.role}"
            raise DataError("one file holds rows of one kind", where=f"--to {to}", expected="one", found=kinds)
        imported.append(Imported(file.source, file.role, target, len(fresh), file.faults, len(file.rows) - len(fresh)))
        if fresh:
            _require_fit(file, fresh, target, there, params)
            encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
            to_write.setdefault(target, []).extend(encode(row) + "\n" for row in fresh)
    for target, lines in to_write.items():
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        atomic_write_parts(target, (before, *lines))
    return imported


def _content(role: FileName, row: Row) -> str:
    told = {name: value for name, value in row.items() if name not in _NOT_CONTENT and value is not None}
    return json.dumps([role, told], sort_keys=True)


def _require_fit(
    file: CheckedFile,
    fresh: Sequence[Row],
    target: Path,
    there: Mapping[FileName, RawFile],
    params: Params,
) -> None:
    """
    Raises:
        DataError: the file is there, and with these rows would not be read again as what it is.
    """
    if not target.exists():
        return

    def refusal(what: str, expected: str, found: str) -> DataError:
        do = "name another file of data/ with --to, a new one or one of such rows"
        return DataError(what, where=f"{file.source.file} -> {target}", expected=expected, found=found, do=do)

    of_target = [
        (role, source, raw) for role, raw in there.items() for source in raw.sources if source.file == target.name
    ]
    for role, source, raw in of_target:
        own = _OWN[file.role]
        if role != file.role or source.kind != "JSONL" or source.format != own or params.data.columns:
            found = f"{role} ({source.format}; {source.kind})" + (", by data.columns" if params.data.columns else "")
            raise refusal("the file there has other rows", f"{file.role} ({own}; JSONL)", found)
        taken = {row["id"] for row, name in zip(raw.rows, raw.files, strict=True) if name == target.name}
        if twice := [row["id"] for row in fresh if row["id"] in taken]:
            found = f"{len(twice)}, such as {twice[0]}"
            raise refusal("ids of new rows are those of other rows there", "ids that no row there has", found)
