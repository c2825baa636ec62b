"""Content digests as DVC computes them, so that MLflow's lineage tags and `dvc.lock` speak of the same things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import ArtifactError


def digest(path: Path) -> str:
    """MD5 of a file, or DVC's `<md5>.dir` of a folder (the MD5 of its sorted list of names and file digests).

    Raises:
        ArtifactError: the path does not exist.
    """
    return _of_file(path) if path.is_file() else _of_folder(path, _files_in(path))


def tree_digests(path: Path) -> dict[Path, str]:
    """Digests of a file, or of a folder and all files and folders in it; each file is read once.

    Raises:
        ArtifactError: the path does not exist.
    """
    if path.is_file():
        return {path: _of_file(path)}
    files = _files_in(path)
    folders = [path, *(entry for entry in path.rglob("*") if entry.is_dir())]
    return files | {folder: _of_folder(folder, files) for folder in folders}


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def require_input(path: Path) -> None:
    """
    Raises:
        ArtifactError: the path does not exist.
    """
    if not path.exists():
        raise ArtifactError(
            "an input is missing",
            where=str(path),
            expected="a file or folder that an earlier stage writes",
            found="nothing",
            do="run `dvc repro`, which makes whatever is missing",
        )


def _files_in(folder: Path) -> dict[Path, str]:
    require_input(folder)
    return {file: _of_file(file) for file in folder.rglob("*") if file.is_file()}


def _of_folder(folder: Path, files: Mapping[Path, str]) -> str:
    entries = [
        {"md5": value, "relpath": file.relative_to(folder).as_posix()}
        for file, value in files.items()
        if folder in file.parents
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + ".dir"


def digest_of_values(values: Any) -> str:
    """SHA-256 of plain values (dicts, lists, numbers, text), independent of key order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
