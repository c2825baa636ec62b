"""Secrets of the environment and of .dvc/config.local are in nothing that a run leaves, however it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from promotion_workspace import models, put_candidate, shared_store, workspace  # noqa: F401
from ruamel.yaml import YAML
from test_approved_runs import project  # noqa: F401
from tiny_project import Tiny

from components.place import Place
from flows.workspace import RUNS

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-in-the-environment-1",
    "PROXIMAL_REWARD_TOKEN": "planted-in-the-environment-2",
    "MLFLOW_TRACKING_PASSWORD": "planted-in-the-environment-3",
}
REMOTE_SECRET = "planted-in-config-local"


def files_with(text: str, *folders: Path) -> list[Path]:
    """Every file below the folders that has the bytes of a text; databases are searched as they lie on the disk."""
    found = []
    for folder in folders:
        files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        found += [path for path in files if text.encode() in path.read_bytes()]
    return found


def test_no_secret_is_in_what_runs_leave(
    project: Tiny,  # noqa: F811
    models: Path,  # noqa: F811
    store: str,
    proximal: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    put_candidate(models, 1, gold=0.75)
    pipeline = YAML(typ="safe").load(project.folder / "dvc.yaml")
    made = pipeline["stages"]["made"]
    made["cmd"] = f"if grep -q '^seed: 66' params.yaml; then echo fails; exit 1; fi; {made['cmd']}"
    made["deps"].append("params.yaml")
    YAML().dump(pipeline, project.folder / "dvc.yaml")
    project.commit()
    local = project.folder / ".dvc" / "config.local"
    local.write_text(f"['remote \"team\"']\n    url = s3://bucket\n    secret_access_key = {REMOTE_SECRET}\n")

    ends = []
    for seed in ("55", "66"):
        run = proximal("run", "--set", f"seed={seed}")
        said, _ = run.communicate(timeout=300)
        ends.append(run.returncode)
        assert not any(secret in said for secret in (*SECRETS.values(), REMOTE_SECRET))
    assert ends[0] == 0 and ends[1] != 0, said

    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).split("///")[1]).parent
    kept = Path(store.removeprefix("sqlite:///")).parent
    [left] = (project.folder / RUNS).iterdir()
    assert (left / "params.yaml").exists()  # of the run that failed

    # Each place is really searched: what must be there is found.
    assert files_with("people", database) and files_with("params_sha256", kept)
    assert files_with("seed: 66", left) and files_with(REMOTE_SECRET, project.folder) == [local]
    for secret in SECRETS.values():
        assert files_with(secret, project.folder, database, kept, Place().root.absolute()) == []
    assert files_with(REMOTE_SECRET, database, kept) == []
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRETS["AWS_SECRET_ACCESS_KEY"]
