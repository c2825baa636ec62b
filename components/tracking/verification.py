"""Whether a file is what dvc.lock says: DVC takes it from its cache unread, and a damaged disk does not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from components.artifacts import remove_folder
from components.digests import digest
from components.errors import ArtifactError
from components.tracking.dvc_files import cached_file, dvc_cache, locked_outputs


def verify_inputs(read: Mapping[str, str], root: Path) -> None:
    """Compare what a stage reads with what the stages that made it left.

    Args:
        read: path below the root -> digest of the inputs, folders with all that is in them.
        root: of the repository.

    Raises:
        ArtifactError: an input is another than dvc.lock says.
    """
    for stage, outputs in locked_outputs(root / "dvc.lock").items():
        for path, expected in outputs.items():
            # An output is read whole, or a part of it (then the whole tells), or it is a part of what is read.
            is_read = path in read or any(Path(path) in Path(other).parents for other in read)
            if is_read and (found := read.get(path) or digest(root / path)) != expected:
                raise _damage(stage, Path(path), expected, found, root)


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


def _damage(stage: str, path: Path, expected: str, found: str, folder: Path) -> ArtifactError:
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
