"""Keys that people choose in params.yaml are never read by a shell: DVC hands commands to one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The stage alignment of the shipped dvc.yaml, without what it depends on."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    alignment = pipeline["stages"]["alignment"]
    command = {"cmd": alignment["do"]["cmd"], "outs": ["made-${key}"], "deps": ["there"]}
    (tmp_path / "there").touch()
    stages = {"alignment": {"foreach": alignment["foreach"], "do": command}}
    YAML().dump({"stages": stages}, tmp_path / "dvc.yaml")
    shutil.copytree(ROOT / "infra" / "accelerate", tmp_path / "infra" / "accelerate")
    _run(tmp_path, "dvc", "init", "--quiet")
    return tmp_path


def _run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "true"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)


@pytest.mark.parametrize("key", ["$(touch planted)", "2\ntouch planted", "`touch planted`"])
def test_a_cycles_key_reaches_no_shell(project: Path, key: str) -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["cycles"] = {key: {"start": "artifacts/sft"}}
    YAML().dump(params, project / "params.yaml")
    done = _run(project, "dvc", "repro")
    assert done.returncode != 0 and "a cycle's key is no number" in done.stderr, done.stderr
    assert not (project / "planted").exists()


def test_a_run_refuses_such_a_key_before_anything_else(project: Path) -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["cycles"] = {"1; touch planted": {"start": "artifacts/sft"}}
    YAML().dump(params, project / "params.yaml")
    done = _run(project, "flows.cli", "run")
    assert done.returncode == 2 and "numbered '1', '2', ... in order" in done.stderr, done.stderr
    assert not (project / "planted").exists()


def test_no_command_of_the_pipeline_holds_a_value_of_params() -> None:
    """`compare/dvc.yaml` may: the words there are its own, of its matrix."""
    for stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values():
        assert "${" not in stage.get("do", stage)["cmd"]
