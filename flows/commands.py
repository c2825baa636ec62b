"""Commands of git and DVC that must succeed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from components.errors import EnvironmentFault
from flows.environment import quiet_dvc


def git(folder: Path, *arguments: str, fault: str = "a command failed that the run needs", do: str = "") -> str:
    """What git answers.

    Args:
        fault: what it means that it cannot.
        do: what is to be done then.

    Raises:
        EnvironmentFault: it cannot.
    """
    return _answer(folder, ["git", *arguments], fault, do)


def dvc(folder: Path, *arguments: str, fault: str = "a command failed that the run needs", do: str = "") -> str:
    """What DVC answers, asked quietly; otherwise as `git`."""
    quiet_dvc(folder)
    return _answer(folder, [sys.executable, "-m", "dvc", "--quiet", *arguments], fault, do)


def _answer(folder: Path, command: list[str], fault: str, do: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        found = " ".join((done.stderr or done.stdout).split())
        raise EnvironmentFault(fault, where=f"`{' '.join(command)}` in {folder}", found=found, do=do)
    return done.stdout.strip()
