"""How a command tells the flow what became of it: a file that is there once it begins, and then holds its exit status.

The word `again` after it: the machine failed, in a way that it may not fail once more, so that another try is worth it.
Absent: the command never began (DVC had its result, or refused to run it). Empty: it began and was killed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PROXIMAL_STATUS_FILE"
_AGAIN = "again"


@dataclass(frozen=True)
class Status:
    """What such a file tells.

    Args:
        began: the command was started.
        exit_status: what it ended with; None where it did not begin, or was killed before it could say so.
        again: another try is worth it.
    """

    began: bool
    exit_status: int | None
    again: bool = False


def begin() -> None:
    """Note that this command has begun, if somebody wants to know."""
    if file := os.environ.get(VARIABLE):
        Path(file).touch()


def end(exit_status: int, *, again: bool = False) -> None:
    """Note what this command ends with, if somebody wants to know."""
    if file := os.environ.get(VARIABLE):
        Path(file).write_text(f"{exit_status} {_AGAIN}" if again else str(exit_status))


def read(file: Path) -> Status:
    """What the command has told."""
    if not file.exists():
        return Status(began=False, exit_status=None)
    status, _, more = file.read_text().partition(" ")
    return Status(began=True, exit_status=int(status) if status else None, again=more == _AGAIN)
