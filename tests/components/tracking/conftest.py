"""Runs in a real MLflow store: a sqlite database in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_runs import ROOT

from components.config import Params, load_params
from components.tracking.runs import PARENT_VARIABLE


@pytest.fixture(scope="session")
def params() -> Params:
    """The shipped ones."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database is made once for all tests of this folder: making one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def workspace(shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own for the files of a test, with the shared store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared_store / 'mlflow.db'}")
    for variable in (PARENT_VARIABLE, "PROXIMAL_FLOW_RUN_ID", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path
