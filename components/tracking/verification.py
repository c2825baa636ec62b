"""Whether a file is what dvc.lock says: DVC takes it from its cache unread, and a damaged disk does not tell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from components.artifacts import remove_folder
from components.digests import digest
from components.errors import ArtifactError, EnvironmentFault
from components.tracking.provenance import locked_outputs


def verify_inputs(read: Mapping[str, str]) -> None:
    """Compare what a stage reads with what the stages that made it left.

    Args:
        read: path -> digest of the inputs, folders with all that is in them.

    Raises:
        ArtifactError: an input is another than dvc.lock says.
    """
    for stage, outputs in locked_outputs().items():
        for path, expected in outputs.items():
            # An output is read whole, or a part of it (then the whole tells), or it is a part of what is read.
            is_read = path in read or any(Path(path) in Path(other).parents for other in read)
            if is_read and (found := read.get(path) or digest(Path(path))) != expected:
                raise _damage(stage, Path(path), expected, found)


def verify_outputs(stage: str, folder: Path) -> None:
    """Compare what DVC has put in place for a stage with what it made once; what differs is removed again.

    Left in place, DVC would call it unchanged at the next run.

    Args:
        stage: as `dvc repro` calls it, of dvc.yaml or, with `FILE:NAME`, of another pipeline file.
        folder: the repository.

    Raises:
        ArtifactError: an output is another than dvc.lock says.
    """
    file, _, name = stage.rpartition(":")
    lock = folder / (Path(file).with_suffix(".lock") if file else "dvc.lock")
    for path, expected in locked_outputs(lock).get(name, {}).items():
        if (found := digest(folder / path)) != expected:
            damage = _damage(name, Path(path), expected, found, folder)
            remove_folder(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
            raise damage


def dvc_cache(repository: Path = Path()) -> Path:
    """DVC's cache folder, as the repository's configuration says.

    Raises:
        EnvironmentFault: DVC does not say.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    asked = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise EnvironmentFault(
            "DVC does not say where its cache is",
            where="dvc cache dir",
            found=asked.stderr.strip(),
            do="run from the root of the repository",
        )
    return Path(asked.stdout.strip())


def cached_file(cache: Path, md5: str) -> Path:
    """Where the cache keeps the content with this digest."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _damage(stage: str, path: Path, expected: str, found: str, folder: Path = Path()) -> ArtifactError:
    cache = dvc_cache(folder)
    damaged = [copy for copy in _cached_parts(cache, expected) if copy.exists() and not _is_whole(copy)]
    remove = " ".join(str(each) for each in (*damaged, path))
    return ArtifactError(
        "an output is not what its stage made",
        where=f"{path} of stage {stage}",
        expected=f"md5 {expected}, as dvc.lock says",
        found=f"md5 {found}" + ("; the copy in DVC's cache is damaged" if damaged else ""),
        do=f"`rm -rf {remove}`, then `dvc repro`, which makes it again",
    )


def _cached_parts(cache: Path, md5: str) -> list[Path]:
    """The cache's copy of an output: the file, or the list of a folder and the files that it names."""
    listing = cached_file(cache, md5)
    if not md5.endswith(".dir") or not listing.exists():
        return [listing]
    try:
        return [listing, *(cached_file(cache, entry["md5"]) for entry in json.loads(listing.read_text()))]
    except (ValueError, LookupError, TypeError):  # the list itself is damaged
        return [listing]


def _is_whole(copy: Path) -> bool:
    return digest(copy) == (copy.parent.name + copy.name).removesuffix(".dir")
