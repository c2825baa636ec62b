"""A full disk, or a folder that may not be written to, in plain words."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import EnvironmentFault


def _free_space(path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(folder).free // 2**20} MiB free"


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into an error that names the path.

    Raises:
        EnvironmentFault: no space left, quota or file size limit exceeded, or no permission.
    """
    try:
        yield
    except Exception as fault:
        number = _errno_of(fault)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what = "the file is larger than this process may write" if number == errno.EFBIG else "the disk is full"
            raise EnvironmentFault(
                what,
                where=str(path),
                expected="room for the file",
                found=_free_space(path),
                do="free some space (`dvc gc -w` drops unused cache) or lift the limit, and run the same command again",
            ) from fault
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EnvironmentFault(
                "the file cannot be written",
                where=str(path),
                found=os.strerror(number),
                do="make the folder writable and run the same command again",
            ) from fault
        raise


def _errno_of(fault: Exception) -> int | None:
    """The operating system's number; safetensors and tokenizers keep it in the text of errors of their own."""
    if isinstance(fault, OSError):
        return fault.errno
    found = re.search(r"\(os error (\d+)\)", str(fault))
    return int(found[1]) if found else None
