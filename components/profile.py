"""Where the wall time of this process goes, by named spans. No span reaches an output: outputs keep their bytes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

FILE_VARIABLE = "PROXIMAL_PROFILE_FILE"  # where the flow wants to read this process's spans
IMPORTS = "imports"  # from the start of the process to the beginning of its work
OTHER = "other"  # outside of all spans

_seconds: dict[str, float] = {}
_open = [OTHER]
_mark = time.monotonic()


def _turn() -> None:
    """Count the time since the last turn for the innermost open span."""
    global _mark
    now = time.monotonic()
    _seconds[_open[-1]] = _seconds.get(_open[-1], 0.0) + now - _mark
    _mark = now


@contextmanager
def span(name: str) -> Iterator[None]:
    """Count the block's time under a name; time in a span within it counts for that one only. Main thread only."""
    _turn()
    _open.append(name)
    try:
        yield
    finally:
        _turn()
        _open.pop()


def work_begins() -> None:
    """Count all the time since this process started as imports."""
    global _mark
    _seconds.clear()
    _seconds[IMPORTS] = time.time() - psutil.Process().create_time()
    _mark = time.monotonic()


def seconds() -> dict[str, float]:
    """The seconds of each span so far."""
    _turn()
    return dict(_seconds)


def write() -> None:
    """Leave the seconds for the flow, where it asked for them."""
    if path := os.environ.get(FILE_VARIABLE):
        Path(path).write_text(json.dumps(seconds()))
