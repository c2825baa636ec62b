"""The whole pipeline on a smaller params file, through DVC as a user runs it: it really trains, and gold rises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.worlds.helpdesk import world

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).parent / "params.yaml"
DEVICES = {"printer", "router", "screen"}  # of the twelve: fewer facts take less data to learn
OTHER_DEVICES = set(world.DEVICES) - DEVICES
ROWS = {"prompts": 600, "demonstrations": 1500, "comparisons": 3000}  # about them, or about no device


def _dvc(workspace: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{workspace}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "HF_HUB_OFFLINE": "1",
            "DVC_NO_ANALYTICS": "true",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with the small params, a part of the data, and one finished `dvc repro`."""
    folder = tmp_path_factory.mktemp("pipeline")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("components", "infra/accelerate"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(SMALL, folder / "params.yaml")
    (folder / "data").mkdir()
    for name, count in ROWS.items():
        lines = (ROOT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        about = [line for line in lines if not set(json.loads(line)["prompt"].split()) & OTHER_DEVICES]
        (folder / "data" / f"{name}.jsonl").write_text("".join(about[:count]), encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    _dvc(folder, "init", "--quiet")
    _dvc(folder, "config", "core.analytics", "false")
    _dvc(folder, "add", "--quiet", "data")
    _dvc(folder, "repro")
    return folder


def test_gold_rises_beyond_its_interval(workspace: Path) -> None:
    difference = json.loads((workspace / "artifacts/evaluation/metrics.json").read_text())["difference"]
    assert difference["gold"]["low"] > 0
    assert difference["judge"]["low"] > 0


def test_what_has_run_does_not_run_again(workspace: Path) -> None:
    assert "up to date" in _dvc(workspace, "repro")


def test_a_changed_ppo_param_runs_ppo_and_what_follows(workspace: Path) -> None:
    params = workspace / "params.yaml"
    before = params.read_text()
    section, learning_rate, rest = before.partition("  learning_rate: 4.0e-4\n  learning_rate_warmup")
    assert learning_rate, "the PPO learning rate is no longer where this test changes it"
    try:
        params.write_text(section + learning_rate.replace("4.0e-4", "1.0e-4") + rest)
        changed = set(json.loads(_dvc(workspace, "status", "--json")))
    finally:
        params.write_text(before)
    # What follows alignment@1 shows as changed only once that has run; evaluation also prints the params in its report.
    assert changed == {"alignment@1", "evaluation"}


def test_training_again_gives_the_same_bytes(workspace: Path) -> None:
    lock = (workspace / "dvc.lock").read_bytes()
    for stage in ("sft", "alignment@1"):
        _dvc(workspace, "repro", "--force", "--single-item", "--no-run-cache", stage)
    assert (workspace / "dvc.lock").read_bytes() == lock


def test_a_queue_gives_runs_to_compare_under_one_parent_with_the_bytes_of_runs_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@localhost")
    _git(workspace, "add", "--all")
    _git(workspace, "commit", "--quiet", "--message", "start")
    values = "policy_gradient.learning_rate=1e-4,3e-4"
    _dvc(workspace, "exp", "run", "--queue", "--name", "lr", "-S", values)
    _dvc(workspace, "queue", "start", "--jobs", "1")
    deadline = time.monotonic() + 800
    while _dvc(workspace, "queue", "status").count("Success") < 2:
        assert time.monotonic() < deadline, _dvc(workspace, "queue", "logs", "lr-1")
        time.sleep(1)
    store = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    experiment = [store.get_experiment_by_name("proximal").experiment_id]
    [sweep] = store.search_runs(experiment, "tags.stage = 'sweep'")
    below = store.search_runs(experiment, f"tags.mlflow.parentRunId = '{sweep.info.run_id}'")
    assert {run.data.params["ppo.learning_rate"] for run in below} == {"0.0001", "0.0003"}
    assert sweep.info.status == "FINISHED" and {run.info.status for run in below} == {"FINISHED"}
    for run in below:
        figures = [f"{run.data.metrics[f'eval/{name}']:.3f}" for name in ("gold", "judge", "kl", "win_rate")]
        row = " | ".join([run.data.params["ppo.learning_rate"], *figures, "FINISHED"])
        assert row in sweep.data.tags["mlflow.note.content"]

    _dvc(workspace, "exp", "apply", "lr-2")
    applied = (workspace / "dvc.lock").read_text()
    _dvc(workspace, "repro", "--force", "--single-item", "--no-run-cache", "alignment@1")  # alone, in the workspace
    assert (workspace / "dvc.lock").read_text() == applied != _git(workspace, "show", "HEAD:dvc.lock")
    _git(workspace, "reset", "--quiet", "--hard")
    _dvc(workspace, "checkout", "--quiet")


def _git(workspace: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=workspace, check=True, capture_output=True, text=True).stdout
