"""Stores that cannot be recorded in are refused; one that is not there yet is made, by two processes at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from recorded_runs import python, runs

from components.config import Params
from components.errors import ConfigError, EnvironmentFault
from components.tracking import stage_run
from components.tracking.runs import PARENT_VARIABLE


def test_a_parent_of_another_store_is_refused(workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    with (
        pytest.raises(ConfigError, match="parent run is not in this tracking store"),
        stage_run("sft", params),
    ):
        pass


def test_a_relative_sqlite_path_is_refused(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(ConfigError, match="relative path"), stage_run("sft", params):
        pass


def test_a_store_that_was_moved_is_refused_and_nothing_is_written_at_its_old_place(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old / 'mlflow.db'}")
    with stage_run("sft", params) as run:
        run.table("rows.json", [{"a": 1}])
    old.rename(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    with pytest.raises(EnvironmentFault) as caught, stage_run("sft", params):
        raise AssertionError("work began")
    assert str(new / "mlflow.db") in caught.value.where and caught.value.found == str(old / "mlartifacts")
    assert not old.exists()
    link = f"ln -s {new} {old}"
    assert link in caught.value.do
    subprocess.run(link.split(), check=True)
    with stage_run("sft", params) as run:
        run.table("rows.json", [{"a": 1}])
    assert len(list(new.glob("mlartifacts/*/artifacts/rows.json"))) == 2


def test_a_damaged_database_is_named(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("mlflow.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(EnvironmentFault, match="not a database") as caught, stage_run("sft", params):
        pass
    assert str(tmp_path / "mlflow.db") in str(caught.value)


def test_two_processes_make_the_database_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    code = (
        "from components.tracking import stage_run\n"
        "with stage_run(sys.argv[1], params) as run:\n"
        "    run.metrics({'loss': 1.0})\n"
    )
    processes = [python(code, stage, folder=tmp_path) for stage in ("reward_model", "judge")]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    found = runs("attributes.status = 'FINISHED'")
    assert sorted(run.data.tags["stage"] for run in found) == ["judge", "reward_model"]
    assert {run.data.metrics["loss"] for run in found} == {1.0}
    assert Path(found[0].info.artifact_uri).is_relative_to(tmp_path / "mlartifacts")
    left = {path.name for path in tmp_path.iterdir()} - {"mlartifacts"}
    assert left == {"mlflow.db", "mlflow.db.lock", ".work"}
    assert list((tmp_path / ".work").iterdir()) == []
