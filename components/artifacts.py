"""Reading and writing files so that nothing half-written is ever left where a reader would find it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from components.disk import disk_faults
from components.errors import ArtifactError, DataError

_MADE_HERE = (("artifacts",), (".work",))  # folders whose content `dvc repro` makes


@contextmanager
def reading(what: str, path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a stored thing that is absent, half-written or of another kind raises into one error.

    Args:
        what: what is read there, e.g. "model".
        expected: what a whole one has.
    Raises:
        ArtifactError: the block raised.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as fault:
        raise ArtifactError(
            f"a stored {what} cannot be read",
            where=str(path),
            expected=expected,
            found=" ".join(str(fault).split())[:300],
            do="delete its folder and run `dvc repro`, which makes it again; if it comes back as it is, `proximal run` "
            "names the damaged file in DVC's cache"
            if path.parts[:1] in _MADE_HERE
            else "bring a whole one there: nothing in this folder makes it",
        ) from fault


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `path` when the block ends well, and vanishes when it does not.

    A process may be killed at any moment: `recover_folder`, called here too, finds the last whole one afterwards.
    """
    scratch = _scratch(path)
    with disk_faults(path):
        recover_folder(path)
        scratch.mkdir(parents=True)
        try:
            yield scratch
            _sync_tree(scratch)
            if path.exists():
                os.replace(path, _aside(path))
            os.replace(scratch, path)
            _sync(path.parent)
        finally:
            recover_folder(path)


def recover_folder(path: Path) -> None:
    """Put back the whole folder that a process which was killed in `atomic_folder` left aside; drop what is half.

    Names tell which is which: only what is whole is ever renamed to `path` or aside, and only scratch is deleted.
    """
    scratch, aside = _scratch(path), _aside(path)
    with disk_faults(path):
        shutil.rmtree(scratch, ignore_errors=True)
        if aside.exists():
            os.replace(aside, scratch if path.exists() else path)
        shutil.rmtree(scratch, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder so that a process which is killed meanwhile leaves no half of it under its name."""
    recover_folder(path)
    if path.exists():
        os.replace(path, _scratch(path))
    shutil.rmtree(_scratch(path), ignore_errors=True)


def link_or_copy(source: str, target: str) -> None:
    """A hard link where the file system can, which takes no room; else a copy, e.g. to another file system."""
    try:
        os.link(source, target)
    except OSError as fault:
        if fault.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copy2(source, target)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")


def _sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's names: a rename may outlive a power cut, data may not."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old content or the new, never a part."""
    atomic_write_parts(path, (text,))


def atomic_write_parts(path: Path, parts: Iterable[str]) -> None:
    """Write a text file in one step, one part after the other: they need not all be in memory."""
    scratch = _scratch(path)
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("w", encoding="utf-8") as file:
                file.writelines(parts)
            _sync(scratch)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whose bytes depend on the content alone. Not-a-number is refused: JSON has none."""
    atomic_write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    atomic_write_parts(path, (encode(row) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote.

    Raises:
        ArtifactError: it is absent or does not parse.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise ArtifactError(
            "a stage output is missing",
            where=str(path),
            expected="the file that an earlier stage writes",
            found="nothing",
            do="run `dvc repro` (or `make run`), which makes whatever is missing",
        ) from fault
    except ValueError as fault:
        raise ArtifactError(
            "a stage output is corrupt",
            where=str(path),
            expected="JSON",
            found=str(fault),
            do="delete the file and run `dvc repro`",
        ) from fault


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line.

    Raises:
        DataError: it is absent, or a line does not parse or is not an object; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as fault:
        raise DataError(
            "a data file is missing",
            where=str(path),
            expected="a file of one JSON object a line",
            found="nothing",
            do="`dvc pull data.dvc` brings the raw data, `dvc repro` makes everything derived from it",
        ) from fault
    except UnicodeDecodeError as fault:
        raise DataError(
            "a data file is not UTF-8",
            where=str(path),
            expected="UTF-8 text",
            found=f"byte {fault.object[fault.start]:#04x} at offset {fault.start}",
            do="convert the file to UTF-8",
        ) from fault
    rows = []
    for number, marked_line in enumerate(text.split("\n"), start=1):
        line = marked_line.removeprefix("\ufeff")  # a byte order mark, from files that editors wrote
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as fault:
            raise DataError(
                "a line is not JSON",
                where=f"{path}, line {number}",
                expected="one JSON object",
                found=f"{line[:80]!r} ({fault})",
                do="mend or delete the line",
            ) from fault
        if not isinstance(row, dict):
            raise DataError(
                "a line is not a JSON object",
                where=f"{path}, line {number}",
                expected="an object, like {...}",
                found=line[:80],
                do="mend or delete the line",
            )
        rows.append(row)
    return rows
