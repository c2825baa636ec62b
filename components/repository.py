"""The git repository that DVC and lineage rest on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from components.errors import ConfigError, EnvironmentFault


def require_git(folder: Path) -> None:
    """See that git is there and takes the folder for a part of a repository.

    Raises:
        EnvironmentFault: git is not installed.
        ConfigError: the folder is in no git repository, or in one that git does not trust.
    """
    if shutil.which("git") is None:
        raise EnvironmentFault(
            "git is not installed",
            expected="git on the path: DVC and lineage rest on its commits",
            do="install git",
        )
    asked = subprocess.run(["git", "rev-parse"], cwd=folder, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise ConfigError(
            "this folder is no git repository",
            where=str(folder.resolve()),
            expected="a clone of the project: DVC and lineage rest on its commits",
            found=" ".join(asked.stderr.split()),
            do="`git clone` the project, or here: `git init`, `git add --all` and `git commit --message start`",
        )


def last_commit(folder: Path) -> str:
    """The short hash and the subject of the last commit; empty where nothing was committed yet."""
    asked = ["git", "log", "-1", "--format=%h %s"]
    return subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()


def is_committed(file: Path) -> bool:
    """Whether the last commit has a file of this name there, whatever is in it."""
    asked = ["git", "cat-file", "-e", f"HEAD:./{file.name}"]
    return subprocess.run(asked, cwd=file.parent, capture_output=True, check=False).returncode == 0
