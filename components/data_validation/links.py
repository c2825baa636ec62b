"""Raw data is files: a link's target may lie anywhere, and DVC would take it into its cache and its remote."""

from __future__ import annotations

from pathlib import Path

from components.errors import DataError


def refuse_links(folder: Path) -> None:
    """Look for symbolic links in a folder of raw data, all the way down, itself included.

    Raises:
        DataError: there are some; they are named with what they point to.
    """
    links = [path for path in (folder, *sorted(folder.rglob("*"))) if path.is_symlink() and not _is_of_dvc(path)]
    if links:
        raise DataError(
            "raw data is given by symbolic links",
            where=", ".join(map(str, links)),
            expected="files in the folder itself: what a link points to would go into DVC's cache and its remote",
            found=", ".join(str(path.readlink()) for path in links),
            do="put a copy of what may be published there in place of each link",
        )


def _is_of_dvc(link: Path) -> bool:
    """With `cache.type symlink` DVC itself puts links to its cache there: .../files/md5/ab/cdef..."""
    return link.resolve().parts[-4:-2] == ("files", "md5")
