"""What runs in clones left unfinished when they were killed, or failed: the next run in a clone goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from components.place import Place
from components.work_folder import take_from

_LOCK = "run.lock"  # it goes with the process, however that ends


@contextmanager
def own_work(clone: Path) -> Iterator[None]:
    """Work in a clone, with the checkpoints of all clones beside it in which nobody works any more.

    Their folders are named by all that they are of, so that a stage finds its own and no other.
    """
    work = Place(clone).work
    work.mkdir(exist_ok=True)
    with FileLock(work / _LOCK):
        others = [Place(other).work for other in clone.parent.iterdir() if other != clone]
        there = [(other.stat().st_mtime, other) for other in others if other.is_dir()]
        for _, other in sorted(there, reverse=True):  # the last one has come furthest
            try:
                with FileLock(other / _LOCK, blocking=False):
                    take_from(other, work)
            except (Timeout, FileNotFoundError):  # somebody works there, or has just ended and removed it
                continue
        yield
