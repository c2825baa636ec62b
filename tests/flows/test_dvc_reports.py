"""DVC starts a process that reports a command, unless told: not for commands that are ours, but as the user says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny

from components.processes import free_port

LEVELS = ("DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR")


def reports(project: Tiny, home: Path, *command: str) -> bool:
    """Whether a command of DVC's that it starts is reported; nothing leaves this machine."""
    log = home / "daemon.log"  # made by DVC as it starts the process
    environment = {name: value for name, value in os.environ.items() if name != "DVC_NO_ANALYTICS"}
    environment |= dict.fromkeys(LEVELS, str(home)) | {
        "DVC_ANALYTICS_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "DVC_DAEMON_LOGFILE": str(log),
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reported = log.exists()
    log.unlink(missing_ok=True)
    return reported


@pytest.fixture
def project(tiny: Tiny) -> Tiny:
    """One that says nothing of it, as `dvc init` makes it."""
    (tiny.folder / ".dvc" / "config").write_text("")
    tiny.stages(a={})
    tiny.commit()
    return tiny


def test_commands_of_ours_are_reported_where_the_user_asks_for_it_alone(
    project: Tiny, tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    home = tmp_path / "configuration"
    home.mkdir()
    new = project.folder / "new.jsonl"
    new.write_text('{"prompt": "What is a proxy?"}\n')
    run = ("flows.cli", "run", "--no-promotion")
    ours = (run, ("flows.cli", "data", "import", str(new), "--replace"), ("flows.cli", "experiments"))
    assert reports(project, home, "dvc", "status")  # as DVC is
    assert [reports(project, home, *command) for command in ours] == [False] * 3

    (home / "config").write_text("[core]\n    analytics = true\n")
    params = project.folder / "params.yaml"
    content = YAML(typ="safe").load(params)
    content["seed"] += 1
    YAML().dump(content, params)
    project.stages(a={"needs": ["params.yaml"]})
    assert reports(project, home, *run)
