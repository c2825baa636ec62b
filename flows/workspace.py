"""Where a run works: in the repository itself, one run at a time, or in a clone of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from components.config import Params, load_params
from components.config.reading import put
from components.errors import ConfigError, EnvironmentFault
from components.place import Place
from flows.commands import dvc, git
from flows.left_work import own_work
from flows.trust import require_own_code

RUNS = Place().work / "runs"
_LOCAL_CONFIG = Path(".dvc") / "config.local"


def place_of_run(
    repository: Path,
    name: str,
    revision: str | None,
    overrides: Mapping[str, Any] | None = None,
    more_cycles: int = 0,
    start: str | None = None,
) -> AbstractContextManager[Path]:
    """Where a flow run works: the repository itself, or a clone where a revision or other params are asked for.

    Args:
        name, revision, overrides, more_cycles, start: as of `workspace`; with none of the last four there is no clone.
    """
    if revision is None and not overrides and not more_cycles and start is None:
        return whole_repository(repository)
    from prefect.logging import get_run_logger  # commands without a flow need no Prefect

    get_run_logger().info("works in %s, which stays there if the run fails", repository / RUNS / name)
    return workspace(
        repository,
        name=name,
        revision=revision or "HEAD",
        overrides=overrides or {},
        more_cycles=more_cycles,
        start=start,
    )


@contextmanager
def whole_repository(repository: Path) -> Iterator[Path]:
    """The repository itself, for one run at a time: two would train into the same files.

    Raises:
        EnvironmentFault: another run works there now.
    """
    path = Place(repository).work / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)  # it goes with the process, however that ends
    try:
        lock.acquire(blocking=False)
    except Timeout as fault:
        raise EnvironmentFault(
            "another run works in this folder",
            where=str(repository),
            do="wait until it ends, or run a deployment of infra/prefect.yaml: those work in clones",
        ) from fault
    try:
        yield repository
    finally:
        lock.release()


@contextmanager
def workspace(
    repository: Path,
    *,
    name: str,
    revision: str,
    overrides: Mapping[str, Any],
    more_cycles: int = 0,
    start: str | None = None,
    with_data: bool = True,
) -> Iterator[Path]:
    """A clone of the repository at a revision, with its DVC cache; gone after success, kept after a failure.

    What the clone computes, the shared cache keeps: `dvc repro` of the same thing elsewhere restores it.

    Args:
        name: of the folder below `.work/runs/`; no two runs may share it.
        revision: a commit, tag or branch; `origin/...` is fetched first.
        overrides: values for dotted keys of params.yaml, in the clone only.
        more_cycles: how many cycles follow those of params.yaml, from the policy and the state of the last one.
        start: NAME@NUMBER or NAME@ALIAS of a registered policy, which the first cycle begins with in place of the SFT
            policy.
        with_data: put the pinned data in place, too.

    Raises:
        ArtifactError: there is no such policy to start with.
        ConfigError: no such revision, no such key, a value that cannot be, or one that names code.
        EnvironmentFault: git or DVC cannot make the clone or fill in the pinned data.
    """
    folder = repository / RUNS / name
    if revision.startswith("origin/"):
        git(repository, "fetch", "--quiet", "origin")
    commit = _commit(repository, revision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)  # credentials lie in it: for its owner alone
    try:
        git(repository, "clone", "--quiet", "--no-checkout", str(repository), str(folder))
        git(folder, "checkout", "--quiet", "--detach", commit)
        if more_cycles:
            overrides = {**overrides, **_cycles_after(load_params(Place(folder).params, overrides), more_cycles)}
        if start is not None:
            overrides = {**overrides, "cycles.1.start": Place().present_policy.as_posix()}
            _put_policy(start, Place(folder).present_policy / "policy")
        if overrides:
            require_own_code(load_params(Place(folder).params), load_params(Place(folder).params, overrides))
            _override(Place(folder).params, overrides)
        _share_credentials(repository, folder)
        _share_cache(repository, folder)
        if with_data:
            fill_in(folder, absent_data(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # nothing has run in it: nothing to look into
        raise
    try:
        with own_work(folder):
            yield folder
    except BaseException:  # the folder stays to be looked into, whoever may read it: without the remote's credentials
        (folder / _LOCAL_CONFIG).unlink(missing_ok=True)
        _share_cache(repository, folder)
        raise
    shutil.rmtree(folder)


def bring_commit(repository: Path, commit: str) -> None:
    """See that a repository has a commit; its origin is asked for one that it has not.

    Raises:
        ConfigError: neither has it.
    """
    try:
        _commit(repository, commit)
    except ConfigError:
        with suppress(EnvironmentFault):
            git(repository, "fetch", "--quiet", "origin")
    try:
        _commit(repository, commit)
    except ConfigError as fault:
        raise ConfigError(
            "this machine's repository has not the commit that the stage shall run at",
            where=str(repository),
            expected="a commit that is there, or at its origin",
            found=commit,
            do="`git push` it from where the run was started",
        ) from fault


def _commit(repository: Path, revision: str) -> str:
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except EnvironmentFault as fault:
        raise ConfigError(
            "no such revision",
            where=str(repository),
            expected="a commit, tag or branch",
            found=revision,
            do="`git log --oneline --all` shows what there is",
        ) from fault


def _put_policy(named: str, folder: Path) -> None:
    """A copy of a registered policy; its digest is the version's."""
    from components.interface.policies import policy_folder

    with policy_folder(named) as policy:
        shutil.copytree(policy, folder)


def _override(params_file: Path, overrides: Mapping[str, Any]) -> None:
    yaml = YAML()  # keeps the comments
    content = yaml.load(params_file)
    put(content, overrides, str(params_file))
    yaml.dump(content, params_file)


def _cycles_after(params: Params, more: int) -> dict[str, Any]:
    """Overrides for so many cycles beyond the last one."""
    if more < 0:
        raise ConfigError("there are no fewer cycles than those of params.yaml", where="more_cycles", found=str(more))
    last = len(params.cycles)
    return {f"cycles.{k}": {"start": f"artifacts/alignment/{k - 1}"} for k in range(last + 1, last + more + 1)}


def _share_credentials(repository: Path, folder: Path) -> None:
    """Give a clone what the repository's owner wrote for this machine only, such as the credentials of the remote."""
    if (repository / _LOCAL_CONFIG).exists():
        shutil.copyfile(repository / _LOCAL_CONFIG, folder / _LOCAL_CONFIG)


def _share_cache(repository: Path, folder: Path) -> None:
    from dvc.repo import Repo

    with Repo(str(repository)) as source, Repo(str(folder)) as clone, clone.config.edit("local") as config:
        config["cache"]["dir"] = source.cache.local_cache_dir
    (folder / _LOCAL_CONFIG).chmod(0o600)


def absent_data(folder: Path) -> list[str]:
    """The `.dvc` files of a repository that pin what is not there."""
    tracked = [pin for pin in git(folder, "ls-files", "*.dvc").splitlines() if (folder / pin).exists()]
    pins = {pin: YAML(typ="safe").load(folder / pin) for pin in tracked}
    return [
        pin
        for pin, content in pins.items()
        if not all((folder / pin).parent.joinpath(output["path"]).exists() for output in content["outs"])
    ]


def fill_in(folder: Path, pins: Sequence[str]) -> None:
    """Put in place what `.dvc` files pin, from DVC's cache or else from its remote.

    Raises:
        EnvironmentFault: DVC cannot.
    """
    if not pins:
        return
    try:
        dvc(folder, "checkout", *pins)
    except EnvironmentFault:  # the shared cache does not have it all
        dvc(folder, "pull", *pins)
