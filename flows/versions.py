"""A new version of the data: pinned, pushed, committed and announced, or taken back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts import link_or_copy
from components.errors import ConfigError
from components.place import Place
from flows.commands import dvc, git
from flows.environment import set_environment
from flows.preconditions import require_pinned_data

PIN = "data.dvc"
_TAKEN_BACK = {
    "fault": "the rows cannot be made a version of the data, and were taken back",
    "do": "mend what it names, and add them again",
}


@dataclass
class Version:
    """What became of the rows that came or went.

    Args:
        api: of the Prefect server that is told; None where there is none.
        rows: how many.
        remote: where DVC pushes to; None where there is none.
        commit: of data.dvc; "" where there were no new rows.
    """

    repository: Path
    api: str | None
    rows: int = 0
    remote: str | None = None
    commit: str = ""
    _said: list[str] = field(default_factory=list)

    def publish(self, rows: int, message: str) -> None:
        """Pin, push and commit what data/ holds now; does nothing where no row came or went.

        Args:
            rows: how many came or went.
            message: of the commit.

        Raises:
            EnvironmentFault: DVC or git cannot.
        """
        if not rows:
            self._said = ["nothing is new: no commit, no event"]
            return
        self.rows = rows
        dvc(self.repository, "add", Place().data.name, **_TAKEN_BACK)
        self.remote, inside = _remote(self.repository)
        if self.remote:
            dvc(self.repository, "push", PIN, **_TAKEN_BACK)
        # With the path alone: what else is staged stays staged, and is no part of the commit.
        git(self.repository, "commit", "--quiet", "--only", "--message", message, "--", PIN, **_TAKEN_BACK)
        self.commit = git(self.repository, "rev-parse", "HEAD", **_TAKEN_BACK)
        self._said = [f"data.dvc: committed as {self.commit[:12]}"]
        if self.remote is None:
            self._said.append("pushed nowhere: no DVC remote is configured, other machines will not find these rows")
        elif inside:
            self._said.append(f"pushed to {inside}, in this repository: commit that folder, too, for other machines")
        else:
            self._said.append(f"pushed to {self.remote}")

    def announce(self) -> None:
        """Tell Prefect's server, where there is one.

        Raises:
            EnvironmentFault: it does not take the event; the commit stays.
        """
        if self.api is None:
            self._said.append("PREFECT_API_URL names no server: nobody was told")
            return
        from flows.events import MORE_DATA, announce_data

        announce_data(self.api, {"rows": self.rows, "commit": self.commit})
        self._said.append(f"told {self.api}: {MORE_DATA}")

    def lines(self) -> list[str]:
        """What there is to say of it."""
        return self._said

    def plain(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"commit": self.commit or None, "remote": self.remote, "api": self.api}


@contextmanager
def new_version(repository: Path, *, announced: bool = True) -> Iterator[Version]:
    """The block changes data/ and publishes; what fails before the commit leaves data/ and data.dvc as they were.

    Args:
        announced: tell Prefect's server, by which a run of the pipeline may begin.

    Raises:
        ConfigError: data/ and data.dvc are not as the last commit has them, whose version this one follows.
        EnvironmentFault: the Prefect server that is to be told does not answer.
    """
    set_environment(repository)
    _require_committed_pin(repository)
    require_pinned_data(repository)
    from flows.events import api_url

    version = Version(repository, api_url())
    folder, pin = Place(repository).data, repository / PIN
    pinned = pin.read_bytes()
    kept = Path(tempfile.mkdtemp(prefix="data-", dir=Place(repository).work))
    try:
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        for file in files:
            (kept / file).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(str(folder / file), str(kept / file))  # no rows are copied: files are replaced
        try:
            yield version
        except BaseException:
            if not version.commit:
                for path in [path for path in folder.rglob("*") if path.is_file()]:
                    path.unlink()
                for file in files:
                    os.replace(kept / file, folder / file)
                pin.write_bytes(pinned)
            raise
    finally:
        shutil.rmtree(kept)
    if version.commit and announced:
        version.announce()


def _require_committed_pin(repository: Path) -> None:
    if not (repository / PIN).exists():
        raise ConfigError(
            "no data is pinned that rows could be added to",
            where=str(repository / PIN),
            expected="the pin of data/",
            found="nothing",
            do="`proximal data import FILE`, or `dvc add data`, and commit data.dvc",
        )
    if changed := git(repository, "status", "--porcelain", "--", PIN, **_TAKEN_BACK):
        raise ConfigError(
            "data.dvc has changed since the last commit, and a commit of more rows would take that along",
            where=str(repository / PIN),
            expected="no changes",
            found=changed,
            do="`git commit data.dvc`, or `git checkout data.dvc` and `dvc checkout data.dvc`",
        )


def _remote(repository: Path) -> tuple[str | None, str | None]:
    """Where DVC pushes to, and the same as a folder of this repository, where it is one."""
    from dvc.repo import Repo

    with Repo(str(repository)) as project:
        remotes, name = project.config["remote"], project.config["core"].get("remote")
    if not remotes:
        return None, None
    url = str(remotes.get(name, {}).get("url"))  # where none is the default one, `dvc push` says so
    root = repository.resolve()
    return url, str(Path(url).relative_to(root)) if Path(url).is_relative_to(root) else None
