"""Parent runs: one for every DVC command, with its stages below it, in real DVC projects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import ROOT, runs

from components.tracking import reconcile_dead_runs
from components.tracking.runs import PARENT_VARIABLE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project of two recorded stages, of which the second may fail; its store is the repository's own."""
    stage = (
        "import sys\nfrom pathlib import Path\nfrom components.config import load_params\n"
        "from components.tracking import stage_run\n"
        "with stage_run(sys.argv[1], load_params(Path('params.yaml'))):\n"
        "    assert sys.argv[1] != 'judge' or Path('may_end').read_text() == 'yes'\n"
        "    Path(sys.argv[1]).write_text(Path('params.yaml').read_text())\n"
    )
    stages = {
        "sft": {"cmd": f"{sys.executable} stage.py sft", "deps": ["params.yaml"], "outs": ["sft"]},
        "judge": {"cmd": f"{sys.executable} stage.py judge", "deps": ["sft", "may_end"], "outs": ["judge"]},
    }
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "stage.py").write_text(stage)
    (folder / "may_end").write_text("yes")
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / ".gitignore").write_text("/sft\n/judge\n/mlflow.db*\n/mlartifacts\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # for the queue
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    for variable in (PARENT_VARIABLE, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    subprocess.run(["git", "init", "-q"], check=True)
    for name in ("NAME", "EMAIL"):
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_{name}", "t@localhost")
    dvc("init", "-q")
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "first"], check=True)
    return folder


def dvc(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, check=False).returncode


def test_every_dvc_command_gives_one_parent_run_with_its_stages_in_the_repositorys_store(project: Path) -> None:
    commands = [
        ("repro",),
        ("exp", "run", "-S", "seed=11"),
        ("exp", "run", "--temp", "-S", "seed=12"),
        ("exp", "run", "-S", "seed=13", "--queue"),
    ]
    for command in commands:
        assert dvc(*command) == 0
    assert dvc("queue", "start") == 0
    wait_for_parents(4)
    assert sorted(parent.data.params["seed"] for parent in ended_parents()) == ["1", "11", "12", "13"]
    for parent in ended_parents():
        children = runs(f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
        assert {child.data.tags["stage"] for child in children} == {"sft", "judge"}
        assert {child.info.status for child in children} == {"FINISHED"} and len(children) == 2
    assert len(runs("tags.stage != 'sweep'")) == 12  # nobody is an orphan


def test_what_a_queue_runs_are_runs_under_one_parent_whichever_worker_runs_them(project: Path) -> None:
    assert dvc("exp", "run", "--queue", "--name", "lr", "-S", "policy_gradient.learning_rate=1e-4,3e-4") == 0
    assert dvc("exp", "run", "--queue", "-S", "seed=2") == 0  # of no list
    assert dvc("exp", "run", "--run-all", "--jobs", "2") == 0
    wait_for_parents(3)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, check=True, text=True).stdout.strip()
    sweeps = {sweep.info.run_name: sweep for sweep in runs("tags.stage = 'sweep'")}
    assert set(sweeps) == {"lr", f"queue on {commit[:7]}"}
    below = {name: runs(f"tags.mlflow.parentRunId = '{sweep.info.run_id}'") for name, sweep in sweeps.items()}
    assert {run.data.params["ppo.learning_rate"] for run in below["lr"]} == {"0.0001", "0.0003"}
    assert {run.data.tags["sweep"] for run in below["lr"]} == {"lr"} and len(below["lr"]) == 2
    assert [run.data.params["seed"] for run in below.pop(f"queue on {commit[:7]}")] == ["2"]
    assert {sweep.info.status for sweep in sweeps.values()} == {"FINISHED"}
    head, _, *rows = sweeps["lr"].data.tags["mlflow.note.content"].splitlines()
    assert head == "| run | ppo.learning_rate | gold | judge | KL | win rate | ended as |"
    assert [[cell for cell in row.split(" | ") if cell.startswith("0.")] for row in sorted(rows)] == [
        ["0.0001"],
        ["0.0003"],
    ]
    assert dvc("exp", "run", "-S", "seed=3") == 0  # alone it is of no sweep
    [alone] = runs("params.seed = '3' AND tags.stage = 'pipeline'")
    assert "sweep" not in alone.data.tags and "mlflow.parentRunId" not in alone.data.tags


def wait_for_parents(count: int) -> None:
    """A queue's workers go on behind the command that started them."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and len(ended_parents()) < count:
        time.sleep(0.5)


def ended_parents() -> list[Any]:
    ended = [parent for parent in runs("tags.stage = 'pipeline'") if parent.info.status == "FINISHED"]
    return [run for run in ended if len(runs(f"tags.mlflow.parentRunId = '{run.info.run_id}'")) == 2]


def test_the_run_of_a_dvc_command_whose_stage_failed_has_failed(project: Path) -> None:
    Path("may_end").write_text("no")
    assert dvc("repro") != 0
    [failed] = runs("tags.stage = 'pipeline'")
    Path("may_end").write_text("yes")
    assert dvc("repro") == 0  # another command, another run
    statuses = {run.info.run_id: run.info.status for run in runs("tags.stage = 'pipeline'")}
    assert statuses.pop(failed.info.run_id) == "FAILED" and list(statuses.values()) == ["FINISHED"]
    assert reconcile_dead_runs() == []
