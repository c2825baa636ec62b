"""Flow tests run on a real DVC project whose stages take no time, with Prefect's own test harness."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_project import REPOSITORY, STAGE, Tiny, run_command


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project without stages."""
    folder = tmp_path_factory.mktemp("template") / "tiny"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows").write_text("1\n")
    (folder / "stage.py").write_text(STAGE)
    shutil.copy(REPOSITORY / "params.yaml", folder)
    shutil.copytree(REPOSITORY / "infra" / "accelerate", folder / "infra" / "accelerate")
    run_command("git", "init", "--quiet", folder=folder)
    dvc = (sys.executable, "-m", "dvc")
    run_command(*dvc, "init", "--quiet", folder=folder)
    for key in ("core.analytics", "core.check_update"):
        run_command(*dvc, "config", key, "false", folder=folder)
    run_command(*dvc, "add", "--quiet", "data", folder=folder)
    ignored = ["*.out", "log.jsonl", "was_killed", "waited", "child.pid", "/.work", "/.prefect", "/mlflow.db*", "/data"]
    (folder / ".gitignore").write_text("\n".join(ignored) + "\n")
    Tiny(folder).commit()
    return folder


@pytest.fixture
def tiny(template: Path, tmp_path: Path) -> Tiny:
    """A tiny project of the test's own."""
    return Tiny(Path(shutil.copytree(template, tmp_path / "tiny")))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all tests of flows: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def records(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record in that store, and tell nobody."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Prefect's test harness for the session: the URL of its API, and a copy of its database before any run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "true")
        from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=600):
            url = str(PREFECT_API_DATABASE_CONNECTION_URL.value())
            file = tmp_path_factory.mktemp("database") / "prefect.db"
            with sqlite3.connect(url.split("///")[1]) as source, sqlite3.connect(file) as copy:
                source.backup(copy)
            yield str(PREFECT_API_URL.value()), file


@pytest.fixture(scope="session")
def prefect_api(prefect: tuple[str, Path]) -> str:
    """The URL of the API of Prefect's test harness."""
    return prefect[0]


@pytest.fixture(scope="session")
def prefect_database(prefect: tuple[str, Path]) -> Path:
    """A database without a run: another server need not make its own, which takes long."""
    return prefect[1]


@pytest.fixture
def run_flow(tiny: Tiny, prefect_api: str) -> Callable[..., Any]:
    """Runs the flow on the tiny project in this process; gives its final state."""
    from flows.rlhf import rlhf

    def run(**parameters: Any) -> Any:
        return rlhf(tiny.folder, return_state=True, **{"promotion": False, **parameters})

    return run


@pytest.fixture
def proximal(tiny: Tiny, prefect_api: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `proximal` with arguments in the tiny project; whatever is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=tiny.folder,
            env={**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Where the tests run in the background, SIGINT is ignored, and so it would be in whatever they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
