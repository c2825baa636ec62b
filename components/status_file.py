"""How a command tells the flow what became of it: a file that is there once it begins, and then holds its exit status.

Absent: the command never began (DVC had its result, or refused to run it). Empty: it began and was killed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PROXIMAL_STATUS_FILE"


@dataclass(frozen=True)
class Status:
    """What such a file tells.

    Args:
        began: the command was started.
        exit_status: what it ended with; None where it did not begin, or was killed before it could say so.
    """

    began: bool
    exit_status: int | None


def begin() -> None:
    """Note that this command has begun, if somebody wants to know."""
    if file := os.environ.get(VARIABLE):
        Path(file).touch()


def end(exit_status: int) -> None:
    """Note what this command ends with, if somebody wants to know."""
    if file := os.environ.get(VARIABLE):
        Path(file).write_text(str(exit_status))


def read(file: Path) -> Status:
    """What the command has told."""
    if not file.exists():
        return Status(began=False, exit_status=None)
    content = file.read_text()
    return Status(began=True, exit_status=int(content) if content else None)
