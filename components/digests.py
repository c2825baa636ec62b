"""Content digests as DVC computes them, so that MLflow's lineage tags and `dvc.lock` speak of the same things."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from components.errors import ArtifactError


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest(path: Path) -> str:
    """MD5 of a file, or DVC's `<md5>.dir` of a folder (the MD5 of its sorted list of names and file digests).

    Raises:
        ArtifactError: the path does not exist.
    """
    if path.is_file():
        return _md5_of_file(path)
    if not path.is_dir():
        raise ArtifactError(
            "an input is missing",
            where=str(path),
            expected="a file or folder that an earlier stage writes",
            found="nothing",
            do="run `dvc repro`, which makes whatever is missing",
        )
    entries = [
        {"md5": _md5_of_file(file), "relpath": file.relative_to(path).as_posix()}
        for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).parts)
        if file.is_file()
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + ".dir"


def digest_of_values(values: Any) -> str:
    """SHA-256 of plain values (dicts, lists, numbers, text), independent of key order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
