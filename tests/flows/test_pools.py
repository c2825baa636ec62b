"""What stages on other pools take is asked before anything is paid for, and which stages they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from ruamel.yaml import YAML
from tiny_project import Tiny

from components.config import Params, parse_params
from components.errors import ConfigError, ProximalError
from components.place import Place
from flows.graph import read_stages
from flows.pools import dispatches, require_pools

DVC = [sys.executable, "-m", "dvc"]


def params_with(tiny: Tiny, pools: dict[str, str | None], remote: str | None = "team") -> Params:
    content = YAML(typ="safe").load(Place(tiny.folder).params)
    content["orchestration"] |= {"pools": pools, "hand_over_remote": remote}
    return parse_params(content, "here")


@pytest.fixture
def project(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A committed project with a remote for the team, one in the repository and one on the web; servers are named."""
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"]})
    for name, url in (("team", tmp_path / "team"), ("shipped", tiny.folder / "remote"), ("web", "https://localhost/x")):
        subprocess.run([*DVC, "remote", "add", "--quiet", name, str(url)], cwd=tiny.folder, check=True)
    tiny.commit()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    return tiny


def test_params_with_pools_name_a_remote(tiny: Tiny) -> None:
    assert params_with(tiny, {"b": None}, None).orchestration.pools == {"b": None}
    assert params_with(tiny, {"b": "gpu"}).orchestration.pool_of("b@2") == "gpu"
    with pytest.raises(ConfigError) as refusal:
        params_with(tiny, {"b": "gpu"}, None)
    assert "orchestration.hand_over_remote" in refusal.value.where


def test_a_run_without_pools_asks_for_nothing(project: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    for pools in ({}, {"b": None}):
        params = params_with(project, pools)
        require_pools(params, project.folder)
        assert dispatches(params, read_stages(project.folder), project.folder, project.folder) == {}


@pytest.mark.parametrize(
    ("variable", "value", "remote", "where", "found"),
    [
        ("PREFECT_API_URL", "", "team", "orchestration.pools", "start one for itself alone"),
        ("MLFLOW_TRACKING_URI", "sqlite:////tmp/x.db", "team", "MLFLOW_TRACKING_URI", "sqlite:////tmp/x.db"),
        ("MLFLOW_TRACKING_URI", "http://me:secret@localhost", "team", "MLFLOW_TRACKING_URI", ""),
        ("X", "", "other", "orchestration.hand_over_remote", "other"),
        ("X", "", "shipped", "orchestration.hand_over_remote", "shipped: "),
        ("X", "", "web", "orchestration.hand_over_remote", "web"),
    ],
)
def test_what_another_machine_could_not_reach_is_refused(
    project: Tiny, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remote: str, where: str, found: str
) -> None:
    require_pools(params_with(project, {"b": "gpu"}), project.folder)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refusal:
        require_pools(params_with(project, {"b": "gpu"}, remote), project.folder)
    assert where in refusal.value.where and found in refusal.value.found
    assert "secret" not in str(refusal.value)


@pytest.fixture
def asked(project: Tiny, prefect_api: str) -> Iterator[Callable[..., Any]]:
    """Asks in a flow run, as the pipeline's flow does, on a server with the flow `stage` on pool gpu."""

    @flow(name="stage")
    def stage() -> None: ...

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="pools-test", type="process"), overwrite=True)
        deployment = client.create_deployment(client.create_flow(stage), "test", work_pool_name="pools-test")

        @flow
        def ask(pools: dict[str, str | None]) -> Any:
            params = params_with(project, pools)
            return dispatches(params, read_stages(project.folder), project.folder, project.folder)

        def answer(**pools: str | None) -> Any:
            return ask(pools)

        yield answer
        client.delete_deployment(deployment)


def test_which_stages_go_where(project: Tiny, asked: Callable[..., Any]) -> None:
    found = asked(a=None, b="pools-test")
    assert list(found) == ["b"]
    dispatch = found["b"]
    assert (dispatch.pool, dispatch.remote, dispatch.overrides) == ("pools-test", "team", {})
    assert dispatch.revision == project.git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("pools", "where", "found"),
    [
        ({"promotion": "pools-test"}, "orchestration.pools.promotion", "promotion"),
        ({"b": "nowhere"}, "orchestration.pools: nowhere", "none"),
    ],
)
def test_a_stage_or_a_pool_that_is_not_there_is_refused(
    asked: Callable[..., Any], pools: dict[str, str], where: str, found: str
) -> None:
    with pytest.raises(ProximalError) as refusal:
        asked(**pools)
    assert where in refusal.value.where and refusal.value.found == found


def test_what_is_not_committed_is_refused_but_for_the_lock(project: Tiny, asked: Callable[..., Any]) -> None:
    lock = project.folder / "dvc.lock"
    lock.write_text("schema: '2.0'\nstages: {}\n")
    project.commit()
    lock.write_text("schema: '2.0'\n")
    assert list(asked(b="pools-test")) == ["b"]
    (project.folder / "stage.py").write_text("another")
    with pytest.raises(ConfigError) as refusal:
        asked(b="pools-test")
    assert refusal.value.where == "stage.py" and "commit" in refusal.value.do
