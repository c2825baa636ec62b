"""A fresh clone, after `make setup`, can compare with the last commit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clones import lend_venv

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = """
stages:
  train:
    cmd: >-
      mkdir -p out && cp value.json out/metrics.json && cp curve.json out/curve.json
      && cat value.json curve.json > out/model
    deps: [value.json, curve.json]
    outs:
      - out/model: {push: false}
    metrics: [out/metrics.json]
    plots:
      - out/curve.json: {x: step, y: loss}
"""


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(*arguments: str, folder: Path) -> str:
    return run(sys.executable, "-m", "dvc", *arguments, folder=folder)


def commit(folder: Path) -> None:
    run("git", "add", "-A", folder=folder)
    run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "state", folder=folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as this one: the remote lies in it, the Makefile and DVC's settings are the shipped ones."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "compare").mkdir()
    (folder / "infra").mkdir()
    run("git", "init", "-q", folder=folder)
    dvc("init", "-q", folder=folder)
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "infra" / "make_venv.sh", folder / "infra")
    (folder / ".gitignore").write_text("/out\n/data\n/.venv\n")
    (folder / "data" / "rows").write_text("1\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "compare" / "dvc.yaml").write_text("stages: {}\n")
    (folder / "value.json").write_text('{"gold": 1.0}')
    (folder / "curve.json").write_text('[{"step": 1, "loss": 2.0}]')
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "constraints.txt").touch()
    dvc("add", "-q", "data", folder=folder)
    dvc("repro", "-q", folder=folder)
    commit(folder)
    return folder


def fresh_clone(project: Path) -> tuple[Path, str]:
    """A clone after the part of `make setup` that fetches, and what that said."""
    clone = project.parent / "clone"
    run("git", "clone", "-q", str(project), str(clone), folder=project)
    lend_venv(clone)
    made = subprocess.run(["make", ".venv/.data"], cwd=clone, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return clone, made.stdout + made.stderr


def test_it_compares_with_the_last_commit_whose_figures_were_pushed(project: Path) -> None:
    dvc("push", "-q", folder=project)
    commit(project)
    clone, said = fresh_clone(project)
    assert "do not exist" not in said and (clone / "data" / "rows").exists()
    (clone / "value.json").write_text('{"gold": 3.0}')
    (clone / "curve.json").write_text('[{"step": 1, "loss": 5.0}]')
    dvc("repro", "-q", folder=clone)
    metrics: dict[str, Any] = json.loads(dvc("metrics", "diff", "--json", folder=clone))
    assert metrics["out/metrics.json"]["gold"] == {"old": 1.0, "new": 3.0, "diff": 2.0}
    experiment = json.loads(dvc("exp", "diff", "--json", folder=clone))
    assert experiment["metrics"]["out/metrics.json"]["gold"] == {"old": 1.0, "new": 3.0, "diff": 2.0}
    assert '"loss": 2.0' in (plots := dvc("plots", "diff", "--json", folder=clone)) and '"loss": 5.0' in plots


def test_a_commit_whose_figures_nobody_has_pushed_is_set_up_all_the_same(project: Path) -> None:
    dvc("push", "-q", "data.dvc", folder=project)
    commit(project)
    clone, said = fresh_clone(project)
    assert "do not exist neither locally nor on remote" in said and (clone / "data" / "rows").exists()
