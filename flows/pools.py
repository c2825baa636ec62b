"""Which stages of a run go to another work pool than its flow: what params say, and what that takes, asked first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from components.errors import ConfigError
from components.place import Place
from flows.environment import TRACKING_URI_VARIABLE, tracking_uri
from flows.graph import Stage
from flows.server import API_VARIABLE

if TYPE_CHECKING:
    from components.config import Params
    from flows.elsewhere import Dispatch

_KEY = "orchestration.pools"


def require_pools(params: Params, repository: Path) -> None:
    """See that a run whose params name pools has what it takes on this machine.

    Raises:
        ConfigError: no Prefect server, MLflow in a file, or a DVC remote that cannot hand over.
        EnvironmentFault: DVC cannot use the remote.
    """
    if not any(params.orchestration.pools.values()):
        return
    if not os.environ.get(API_VARIABLE):
        raise ConfigError(
            "stages on other pools need a Prefect server that their workers know, too",
            where=_KEY,
            expected=f"{API_VARIABLE}, the address of a server",
            found="none: this run would start one for itself alone",
            do="`prefect server start`, and set the variable here and where the workers run",
        )
    uri = tracking_uri(repository)
    if not uri.startswith(("http://", "https://")):
        raise ConfigError(
            "stages on other pools need an MLflow server: no other machine writes into a file of this one",
            where=f"{_KEY}, {TRACKING_URI_VARIABLE}",
            expected="http://HOST:PORT",
            found=uri,
            do="`mlflow server`, and set the variable here and where the workers run",
        )
    if urlsplit(uri).username is not None:
        raise ConfigError(
            "the address of the MLflow server holds a name or a password, and is sent to the workers in plain text",
            where=TRACKING_URI_VARIABLE,
            expected="an address alone",
            do="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD here and where the workers run",
        )
    from flows.hand_over import require_remote

    assert params.orchestration.hand_over_remote is not None, "params with pools have one"
    require_remote(repository, params.orchestration.hand_over_remote)


def dispatches(params: Params, graph: Sequence[Stage], folder: Path, repository: Path) -> dict[str, Dispatch]:
    """The stages that run on another pool than the flow that asks, by name.

    Args:
        folder: where the run works: the repository, or a clone at a revision with its params overridden.

    Raises:
        ConfigError: a pool or a stage that is not there, or something that another machine could not know.
        EnvironmentFault: DVC cannot use the remote.
    """
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    from flows.elsewhere import Dispatch

    settings = params.orchestration
    if not any(settings.pools.values()):
        return {}
    known = list(dict.fromkeys(stage.name.partition("@")[0] for stage in graph if not stage.name.endswith(".dvc")))
    if unknown := [name for name in settings.pools if name not in known]:
        raise ConfigError(
            "a pool is named for what is no stage of dvc.yaml",
            where=", ".join(f"{_KEY}.{name}" for name in unknown),
            expected=f"one of {', '.join(known)}",
            found=", ".join(unknown),
            do="correct the name; promotion runs where the flow runs",
        )
    require_pools(params, repository)
    remote = settings.hand_over_remote
    assert remote is not None, "params with pools have one"
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(flow_run.id).work_pool_name
        pools = {pool for pool in settings.pools.values() if pool is not None and pool != own}
        deployments = {pool: _deployment(client, pool) for pool in sorted(pools)}
    named = {stage.name: pool for stage in graph if (pool := settings.pool_of(stage.name)) in deployments and pool}
    if not named:
        return {}
    if folder == repository:
        _require_committed(folder, list(named))
    revision = _git(folder, "rev-parse", "HEAD").strip()
    overrides = _overrides(folder)
    return {name: Dispatch(pool, deployments[pool], remote, revision, overrides) for name, pool in named.items()}


def _overrides(folder: Path) -> dict[str, Any]:
    """The sections of a clone's params that are others than in its commit: what the run was asked for."""
    file = Place(folder).params
    yaml = YAML(typ="safe")
    here, committed = yaml.load(file), yaml.load(_git(folder, "show", f"HEAD:{file.name}"))
    return {section: value for section, value in here.items() if value != committed.get(section)}


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def _deployment(client: Any, pool: str) -> str:
    """The id of the flow `stage` on a pool. Raises: ConfigError, there is none."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, WorkPoolFilter, WorkPoolFilterName

    found = client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["stage"])),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    if not found:
        raise ConfigError(
            "nothing runs stages on this pool",
            where=f"{_KEY}: {pool}, on {client.api_url}",
            expected="a deployment of the flow `stage` on the pool of that name",
            found="none",
            do="`make deploy`, which has one for pool gpu; for another pool give infra/prefect.yaml a copy of it",
        )
    return str(found[0].id)


def _require_committed(repository: Path, stages: Sequence[str]) -> None:
    """dvc.lock may have changed: what it says of the inputs is sent along.

    Raises:
        ConfigError: what another machine would take from the last commit is not what lies here.
    """
    status = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
    changed = _git(repository, *status).split("\n")
    if changed := [line[3:] for line in changed if line]:
        raise ConfigError(
            "a stage on another pool runs at the last commit, and this folder has changed since",
            where=", ".join(changed),
            expected=f"no changes, for stage {', '.join(stages)}",
            do="commit and `git push` them, or `git stash`",
        )
