"""What passes between machines when a stage runs on another one: DVC's objects and its run cache, by one DVC remote.

`dvc push` leaves out what dvc.yaml marks `push: false`, which keeps models out of a remote in the repository. Here they
are named one by one, by DVC's own functions: the files that a stage reads, and the files that it made. DVC's run cache
goes by the present folder, which is therefore the project's.

It is a command, too, which ends with whoever started it: `python -m flows.hand_over STAGE REMOTE [READS]` fetches
the inputs where it is told what the stage reads, else it sends the result.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.errors import USER_ERROR_STATUS, ConfigError, EnvironmentFault, ProximalError
from components.processes import die_with_parent
from flows.graph import PIPELINE

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage as DvcStage


class HandOver(NamedTuple):
    """What the other machine is told, in plain values.

    Args:
        lock: what dvc.lock says of the outputs that the stage reads, by the stages that made them.
        reads: a name and a digest or value of all that the stage goes by: command, dependencies, params.
    """

    lock: dict[str, Any]
    reads: dict[str, Any]


def send_inputs(name: str, remote: str) -> HandOver:
    """Put what a stage reads and other stages, or pinned data, have as outputs into the remote.

    Raises:
        EnvironmentFault: DVC cannot.
    """
    with _project(Path(), remote) as project:
        stage = _stage(project, name)
        inputs = _inputs(project, stage)
        locked = {}
        for made_by in {output.stage for output in inputs}:
            if made_by.cmd:  # what pins data is in git
                locked[made_by.name] = {key: _entry(made_by)[key] for key in ("cmd", "outs")}
        _transfer(project.cloud.push, inputs, name, remote)
        return HandOver(locked, _reads(stage))


def fetch_inputs(name: str, remote: str, reads: dict[str, Any]) -> None:
    """Put in place what a stage reads, from the remote; dvc.lock says what that is.

    Args:
        reads: what it goes by on the machine that asks.

    Raises:
        ConfigError: here it would go by something else, and its result would be another's.
        EnvironmentFault: DVC cannot.
    """
    with _project(Path(), remote) as project:
        stage = _stage(project, name)
        inputs = _inputs(project, stage)
        _transfer(project.cloud.pull, inputs, name, remote)
        if inputs:
            project.checkout([output.fs_path for output in inputs], force=True)
        here = _reads(stage)
    if differing := sorted(key for key in reads | here if reads.get(key) != here.get(key)):
        raise ConfigError(
            "the stage would read something else on this machine than where its run is",
            where=f"stage {name}: {', '.join(differing)}",
            expected="the same content on both: in git, or as an output or pinned data in DVC",
            found="; ".join(f"{key}: {reads.get(key)} there, {here.get(key)} here" for key in differing[:3]),
            do="commit what only one of the machines has, or `dvc add` it",
        )


def send_result(name: str, remote: str) -> None:
    """Put what a stage has made into the remote, and then the entry of the run cache by which it is found.

    Raises:
        EnvironmentFault: DVC cannot.
    """
    with _project(Path(), remote) as project:
        _transfer(project.cloud.push, _stage(project, name).outs, name, remote)
    # DVC pushes a run cache whole. One that is new has this stage's entry alone, not all that this machine ever ran.
    with (
        tempfile.TemporaryDirectory(prefix="proximal-") as scratch,
        _project(Path(), remote, config={"cache": {"dir": scratch}}) as project,
    ):
        project.stage_cache.save(_stage(project, name))
        project.stage_cache.push(remote)


def fetch_result(name: str, remote: str) -> bool:
    """Whether the run cache, with the remote's entries, knows what a stage would make now; it is in DVC's cache then.

    Raises:
        EnvironmentFault: DVC cannot.
    """
    from dvc.stage.cache import RunCacheNotFoundError

    with _project(Path(), remote) as project:
        entries = project.cloud.get_remote_odb(remote, "fetch --run-cache", hash_name="md5-dos2unix")
        project.stage_cache.transfer(entries, project.cache.legacy, force=False)  # those that are not here yet
        stage = _stage(project, name)
        stage.remove_outs()  # as `dvc repro` does first: they are another run's
        try:
            project.stage_cache.restore(stage, pull=True)
        except RunCacheNotFoundError:
            return False
        return True


def require_remote(folder: Path, remote: str) -> None:
    """See that a remote can hand over: it is one of DVC's, takes a run cache, and is no part of the repository.

    Raises:
        ConfigError: it is not.
        EnvironmentFault: DVC cannot use it, as without the package for its kind.
    """
    where = "orchestration.hand_over_remote"
    with _project(folder) as project:
        known = sorted(project.config["remote"])
        if remote not in known:
            raise ConfigError(
                "there is no such DVC remote",
                where=where,
                expected=f"one of {', '.join(known)}",
                found=remote,
                do=f"`dvc remote add {remote} URL`, and commit .dvc/config",
            )
        place = project.cloud.get_remote(remote)
        protocol, path = place.fs.protocol, Path(place.path)
        versions = place.worktree or place.fs.version_aware
    if versions or protocol in ("http", "https"):
        raise ConfigError(
            "this DVC remote takes no run cache, by which results come back",
            where=where,
            expected="object storage, a folder or ssh, without worktree and version_aware",
            found=remote,
        )
    if protocol == "local" and (path == folder or folder in path.parents):
        raise ConfigError(
            "this DVC remote lies in the repository, where no other machine looks, and models would get into git",
            where=where,
            expected="a remote that both machines reach",
            found=f"{remote}: {path}",
            do="`dvc remote add NAME URL`, commit .dvc/config, and name that one",
        )


@contextmanager
def _project(folder: Path, remote: str | None = None, **more: Any) -> Iterator[Repo]:
    """The DVC project, with this remote as its default, for one DVC command at a time."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    try:
        with Repo(str(folder), remote=remote, _wait_for_lock=True, **more) as project, lock_repo(project):
            yield project
    except DvcException as fault:
        raise EnvironmentFault(
            "DVC cannot hand over between machines",
            where=f"remote {remote} of {folder}" if remote else str(folder),
            found=" ".join(str(fault).split()),
            do="`dvc push --remote` and `dvc pull --remote` show the same fault; mend the remote or its credentials",
        ) from fault


def _stage(project: Repo, name: str) -> DvcStage:
    there = (stage for stage in project.index.stages if stage.cmd and stage.path_in_repo == str(PIPELINE))
    return next(stage for stage in there if stage.name == name)


def _inputs(project: Repo, stage: DvcStage) -> list[Output]:
    """The outputs that a stage reads, whole or a part of them."""
    from dvc.exceptions import OutputNotFoundError

    inputs: dict[str, Output] = {}
    for dependency in stage.deps:
        try:
            found = project.find_outs_by_path(dependency.fs_path, recursive=True, strict=False)
        except OutputNotFoundError:  # a file of git, or params
            continue
        inputs |= {output.fs_path: output for output in found}
    return list(inputs.values())


def _entry(stage: DvcStage) -> dict[str, Any]:
    """As plain values, for Prefect's parameters."""
    from dvc.stage.serialize import to_single_stage_lockfile

    entry: dict[str, Any] = json.loads(json.dumps(to_single_stage_lockfile(stage)))
    return entry


def _reads(stage: DvcStage) -> dict[str, Any]:
    """By these, DVC's run cache knows a stage: all that is in its key."""
    stage.save_deps(allow_missing=True)
    entry = _entry(stage)
    params = {f"{file}: {key}": value for file, keys in entry.get("params", {}).items() for key, value in keys.items()}
    return {"cmd": entry["cmd"], **{each["path"]: each.get("md5") for each in entry.get("deps", [])}, **params}


def _transfer(how: Any, outputs: Iterable[Output], name: str, remote: str) -> None:
    """Push or pull what these outputs are.

    Raises:
        EnvironmentFault: some of it is not there, or did not arrive.
    """
    objects = {each for output in outputs for found in output.get_used_objs().values() for each in found}
    if failed := how(objects).failed:
        raise EnvironmentFault(
            "not all that a stage hands over arrived",
            where=f"stage {name}, DVC remote {remote}",
            expected=f"{len(objects)} files",
            found=f"{len(failed)} that did not: {', '.join(sorted(str(each.obj_name) for each in failed))}",
            do="see that the remote answers and has room; the next run sends what is missing",
        )


def main(name: str, remote: str, reads: str | None = None) -> int:
    """Hand over on the side of the machine that runs the stage; returns the exit status."""
    try:
        send_result(name, remote) if reads is None else fetch_inputs(name, remote, json.loads(reads))
    except ProximalError as fault:
        print(f"error: {fault}", file=sys.stderr, flush=True)
        return USER_ERROR_STATUS
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(*sys.argv[1:]))
