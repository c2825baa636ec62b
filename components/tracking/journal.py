"""What a run tells, in a file before all else: the tracking store may be away, and the work goes on.

A folder for each process that tells: `records.jsonl` (an entry a line, only ever added to), `files/` (copies of what
goes with them), `state.json` (how far they were delivered) and `lock` (held by whoever adds or delivers). It is gone
when all is delivered; see components.tracking.delivery.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from components.artifacts import atomic_write_text, remove_folder
from components.disk import disk_faults
from components.place import UNDELIVERED_VARIABLE, Place
from components.tracking import store

_RECORDS, _STATE, _LOCK, _FILES = "records.jsonl", "state.json", "lock", "files"
_SECONDS_BETWEEN_SYNCS = 5.0

Entry = dict[str, Any]


def folder() -> Path:
    """Where what is not delivered lies: below the repository's work folder, also for its clones."""
    given = os.environ.get(UNDELIVERED_VARIABLE)
    return Path(given) if given else Place(store.repository()).undelivered


class Journal:
    """The folder of one process's records, locked while this object is open.

    Args:
        path: of the folder.
        state: how far it was delivered, and to which runs.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._file: TextIO | None = None
        self._adding = threading.Lock()  # the stage adds, and who samples the machine
        self._synced = time.monotonic()
        self._copies = 0
        state = path / _STATE
        self.state: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"offset": 0}

    @classmethod
    def begin(cls, name: str, **state: Any) -> Journal:
        """A new one; `name` is what people know its folder by, `state` what is known of its runs already."""
        path = folder() / f"{name}-{uuid.uuid4().hex[:12]}"
        with disk_faults(path):
            _make(path)
            lock = FileLock(path / _LOCK)
            lock.acquire(blocking=False)
            journal = cls(path, lock)
            journal.note(store=store.name(), **state)
        return journal

    @classmethod
    def left(cls) -> Iterator[Journal | Path]:
        """Those that nobody is at work on, opened; of the others the folder."""
        for path in sorted(folder().glob("*/")):
            if path.name.startswith("."):  # delivered, and not quite removed
                shutil.rmtree(path, ignore_errors=True)
                continue
            lock = FileLock(path / _LOCK)
            try:
                lock.acquire(blocking=False)
            except (Timeout, FileNotFoundError):  # at work, or delivered a moment ago
                if path.exists():
                    yield path
                continue
            if not (path / _RECORDS).exists() and not (path / _STATE).exists():  # the lock made its folder again
                remove_folder(path)
                lock.release()
                continue
            yield cls(path, lock)

    @property
    def name(self) -> str:
        """What its run is, e.g. alignment-2."""
        return self.path.name.rpartition("-")[0]

    @property
    def records(self) -> Path:
        """The file with the entries."""
        return self.path / _RECORDS

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write an entry; it is the operating system's when this returns, and on the disk some seconds later."""
        with self._adding, disk_faults(self.records):
            if self._file is None:
                self._file = self.records.open("a", encoding="utf-8")
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Wait until what was added is on the disk, unless that was seen to a moment ago."""
        if self._file is not None and time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            self._synced = time.monotonic()
            os.fsync(self._file.fileno())

    def keep(self, file: Path) -> str:
        """Copy a file or a folder, which may be changed or gone before it is delivered; returns its name here."""
        self._copies += 1
        copy = self.path / _FILES / str(self._copies) / file.name
        with disk_faults(copy):
            copy.parent.mkdir(parents=True)
            shutil.copytree(file, copy) if file.is_dir() else shutil.copyfile(file, copy)
        return copy.relative_to(self.path).as_posix()

    def waiting(self) -> Iterator[tuple[Entry, int]]:
        """The entries that were not delivered, each with the offset behind it."""
        if not self.records.exists():
            return
        behind = self.state["offset"]
        with self.records.open("rb") as file:
            file.seek(behind)
            for line in file:
                if not line.endswith(b"\n"):  # being written, or cut off by a kill
                    return
                behind += len(line)
                yield json.loads(line), behind

    def note(self, **state: Any) -> None:
        """Keep how far the delivery is."""
        self.state |= state
        atomic_write_text(self.path / _STATE, json.dumps(self.state))

    def close(self, *, remove: bool = False) -> None:
        """Let others deliver what is left, or remove what was delivered."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        if remove:
            remove_folder(self.path)
            with suppress(OSError):  # there are others
                self.path.parent.rmdir()
        self._lock.release()


def _make(path: Path) -> None:
    """Make a folder; what is above it may go meanwhile, with the last of what lay there."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return path.mkdir()
